#!/usr/bin/env bash
# Installs what `make test-services` talks to, from Debian's packages. Where that is not possible
# the tests skip with the reason, and fail where RED_RAY_REQUIRE_SERVICES=1 is set.
set -u
have() { command -v "$1" >/dev/null 2>&1; }
have chromium && exit 0
have apt-get || { echo "no apt-get here: install chromium by hand"; exit 1; }
echo "installing chromium ..."
{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 \
    || { echo "chromium could not be installed"; exit 1; }
