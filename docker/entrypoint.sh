#!/bin/sh
# What a container of the image does. Without arguments: migrate the database, then serve the API and execute runs in one
# process (N_JOBS_PER_WORKER=0: the API only). With arguments: those, such as `waystation worker`.
#
#   WAYSTATION_IMAGE_USER=root   stay root; otherwise a container that is started as root becomes the user waystation
#   WAYSTATION_MIGRATE=off       the schema is brought up to date by somebody else
set -eu

if [ "$(id -u)" = 0 ] && [ "${WAYSTATION_IMAGE_USER:-waystation}" != root ] && id waystation >/dev/null 2>&1; then
    HOME=/home/waystation exec setpriv --reuid=waystation --regid=waystation --init-groups "$0" "$@"
fi
unset WAYSTATION_IMAGE_USER

[ $# -eq 0 ] || exec "$@"

migrate=${WAYSTATION_MIGRATE:-auto}
unset WAYSTATION_MIGRATE
if [ "$migrate" != off ]; then
    # Postgres may come up later than this container; what is wrong otherwise is told at once.
    tries=0
    until waystation migrate; do
        code=$?
        tries=$((tries + 1))
        if [ "$code" -ne 1 ] || [ "$tries" -ge 30 ]; then exit "$code"; fi
        sleep 2
    done
fi
exec waystation serve --with-worker --host 0.0.0.0
