#!/usr/bin/env bash
# What the machines of a cluster get (see cluster.yaml): red_ray's wheel and pins, Ray's token and
# the secrets. The last two are made once, for their owner alone, and then kept.
#
#   scripts/cluster_folder.sh PYTHON FOLDER
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1 folder=$2
umask 077
mkdir -p "$folder"
rm -f "$folder"/*.whl
rm -rf build/lib build/bdist.*   # else the wheel would hold modules that are gone
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder" .
cp constraints.txt "$folder/constraints.txt"
[ -s "$folder/auth_token" ] ||
    "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' > "$folder/auth_token"
[ -e "$folder/secrets.env" ] ||
    printf '# One NAME=value a line.\n# PGPASSWORD=\n# RED_RAY_TOKENS=\n# OPENAI_API_KEY=\n' > "$folder/secrets.env"
echo "$folder: $(basename "$folder"/*.whl), constraints.txt, auth_token, secrets.env"
