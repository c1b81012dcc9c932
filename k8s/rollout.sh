#!/bin/sh
# Apply an overlay in the order that keeps the service up: settings and databases, migrations of the phase `pre`, the
# processes (awaited), migrations of the phase `post`. Stops at the first thing that fails; safe to repeat.
#
#   k8s/rollout.sh k8s/overlays/production [--context NAME ...]        what follows the overlay goes to every kubectl
#   DRY_RUN=1 k8s/rollout.sh k8s/overlays/production                   the server checks everything and changes nothing
set -eu
overlay=${1:?"usage: k8s/rollout.sh <overlay> [options of kubectl]"}
shift
TIMEOUT_S=${TIMEOUT_S:-1800}

manifests=$(mktemp)
trap 'rm -f "$manifests"' EXIT
kubectl kustomize "$overlay" > "$manifests"
# Kind/name of everything in it, a line each.
things=$(awk '/^[a-zA-Z]/ { section = $1 } /^kind:/ { kind = $2 } section == "metadata:" && /^  name: / { print kind "/" $2 }' "$manifests")
namespace=$(echo "$things" | sed -n 's,^Namespace/,,p')
label=app.kubernetes.io/component

say() { echo "rollout: $*" >&2; }
apply() { kubectl "$@" apply -f "$manifests" -l "$selector" ${DRY_RUN:+--dry-run=server}; }
has() { echo "$things" | grep -qx "$1"; }

migrate() { # <phase> [options of kubectl]
    phase=$1
    shift
    job=waystation-migrate-$phase
    has "Job/$job" || return 0
    say "migrations of the phase $phase"
    selector="$label=migrate-$phase"
    if [ -n "${DRY_RUN:-}" ]; then apply "$@"; return; fi
    kubectl "$@" -n "$namespace" delete job "$job" --ignore-not-found --wait
    apply "$@"
    waited=0
    while :; do
        state=$(kubectl "$@" -n "$namespace" get job "$job" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}')
        case " $state " in
            *" Complete "*) return 0 ;;
            *" Failed "*)
                kubectl "$@" -n "$namespace" logs "job/$job" --tail=50 >&2 || true
                say "$job failed; nothing after it was changed"
                exit 1 ;;
        esac
        [ "$waited" -lt "$TIMEOUT_S" ] || { say "$job did not end within $TIMEOUT_S s"; exit 1; }
        sleep "${POLL_S:-2}"
        waited=$((waited + ${POLL_S:-2}))
    done
}

say "$overlay into the namespace $namespace"
selector="$label in (config,postgres,redis)"
apply "$@"
migrate pre "$@"
say "the processes"
selector="$label notin (migrate-pre,migrate-post)"
apply "$@"
if [ -z "${DRY_RUN:-}" ]; then
    for deployment in waystation-api waystation-worker waystation-api-canary waystation-worker-canary; do
        if has "Rollout/$deployment"; then
            say "$deployment goes step by step; migrations of the phase post wait for it"
            kubectl "$@" -n "$namespace" wait "rollout/$deployment" --for=jsonpath='{.status.phase}'=Healthy --timeout="${TIMEOUT_S}s"
        elif has "Deployment/$deployment"; then
            kubectl "$@" -n "$namespace" rollout status "deployment/$deployment" --timeout="${TIMEOUT_S}s"
        fi
    done
fi
migrate post "$@"
say done
