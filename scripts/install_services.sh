#!/usr/bin/env bash
# Installs what `make test-services` talks to, from Debian's packages (moto from PyPI); each service
# by itself, so that one which cannot be had stops no other. Where one is missing its tests skip with the reason,
# and fail where RED_RAY_REQUIRE_SERVICES=1 is set.
set -u

has_chromium() { command -v chromium; }
has_promtool() { command -v promtool; }
has_moto() { [ -x .venv/moto/bin/moto_server ]; }   # not any other: versions differ in S3's answers
has_postgresql() { command -v initdb || ls /usr/lib/postgresql/*/bin/initdb; }

updated=
update() {  # SERVICE
    command -v apt-get >/dev/null || { echo "no apt-get here: install $1 by hand"; return 1; }
    echo "installing $1 ..."
    [ -n "$updated" ] || apt-get update -qq >/dev/null 2>&1
    updated=yes
}

install() {  # SERVICE PACKAGE...
    local service=$1; shift
    "has_$service" >/dev/null 2>&1 && return 0
    update "$service" || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$@" >/dev/null 2>&1
    "has_$service" >/dev/null 2>&1 || { echo "$service could not be installed"; return 1; }
}

# The program alone, 48 MB: its package brings the server and starts it.
install_promtool() {
    has_promtool >/dev/null 2>&1 && return 0
    update promtool || return 1
    local folder; folder=$(mktemp -d)
    (cd "$folder" && apt-get download -qq prometheus >/dev/null 2>&1 &&
        dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool &&
        command install -m 755 usr/bin/promtool /usr/local/bin/promtool) 2>/dev/null
    rm -rf "$folder"
    has_promtool >/dev/null 2>&1 || { echo "promtool could not be installed"; return 1; }
}

# The tests start servers of their own: no other one shall be made and started by the package.
no_default_server() {
    local conf=/etc/postgresql-common/createcluster.conf
    [ -e "$conf" ] || { mkdir -p "${conf%/*}" && echo "create_main_cluster = false" >"$conf"; } 2>/dev/null
}

# An environment of its own: botocore takes no python-dateutil as new as ours.
install_moto() {
    has_moto >/dev/null 2>&1 && return 0
    echo "installing moto, an S3 server ..."
    "${PYTHON:-python3.11}" -m venv .venv/moto >/dev/null 2>&1 \
        && .venv/moto/bin/python -m pip install --quiet --disable-pip-version-check \
            'moto[s3]>=5.1,<6' 'flask>=3' 'flask-cors>=5' >/dev/null 2>&1
    [ -x .venv/moto/bin/moto_server ] || { echo "moto could not be installed"; return 1; }
}

failed=0
install chromium chromium fonts-dejavu-core || failed=1
has_postgresql >/dev/null 2>&1 || no_default_server
install postgresql postgresql || failed=1
install_promtool || failed=1
install_moto || failed=1
exit "$failed"
