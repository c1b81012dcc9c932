#!/bin/sh
# Apply an overlay in the order that keeps the service up: settings and databases, migrations of the phase `pre`, the
# processes (awaited, with those that they replace), migrations of the phase `post`. Stops at the first thing that
# fails; safe to repeat.
#
#   k8s/rollout.sh k8s/overlays/production [--context NAME ...]        what follows the overlay goes to every kubectl
#   DRY_RUN=1 k8s/rollout.sh k8s/overlays/production                   the server checks everything and changes nothing
#   TIMEOUT_S=3600 k8s/rollout.sh …                                    for each migration and each process, 1800 by default
set -eu
say() { echo "rollout: $*" >&2; }

case "${1:-}" in
    "" | -*)
        echo "usage: k8s/rollout.sh <overlay> [options of kubectl]" >&2
        exit 2 ;;
esac
overlay=$1
shift
TIMEOUT_S=${TIMEOUT_S:-1800}
POLL_S=${POLL_S:-2}

manifests=$(mktemp)
trap 'rm -f "$manifests"' EXIT
# A signal alone would leave the file, in which Secrets may stand.
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
kubectl kustomize "$overlay" > "$manifests"
# Kind/name and namespace of everything in it, a line each.
things=$(awk '
    function tell() { if (kind) print kind "/" name, namespace; kind = name = namespace = "" }
    /^---/ { tell() }
    /^[a-zA-Z]/ { section = $1 }
    /^kind:/ { kind = $2 }
    section == "metadata:" && /^  name: / { name = $2 }
    section == "metadata:" && /^  namespace: / { namespace = $2 }
    END { tell() }' "$manifests")
namespace=$(echo "$things" | awk '/^Deployment\/waystation-/ { print $2; exit }')
if [ -z "$namespace" ]; then
    say "$overlay has no Deployment waystation-… with a namespace; expected an overlay as those in k8s/overlays"
    exit 1
fi
label=app.kubernetes.io/component

apply() { kubectl "$@" apply -f "$manifests" -l "$selector" ${DRY_RUN:+--dry-run=server}; }
has() { echo "$things" | grep -q "^$1 "; }
# Whether there is time for another look, after a pause.
again() {
    [ "$waited" -lt "$TIMEOUT_S" ] || return 1
    sleep "$POLL_S"
    waited=$((waited + POLL_S))
}

migrate() { # <phase> [options of kubectl]
    phase=$1
    shift
    job=waystation-migrate-$phase
    has "Job/$job" || return 0
    say "migrations of the phase $phase"
    selector="$label=migrate-$phase"
    if [ -n "${DRY_RUN:-}" ]; then
        # The Job of the rollout before may be there still, and cannot be changed: this one is checked by another name.
        sed "s,^  name: $job\$,&-check," "$manifests" | kubectl "$@" apply -f - -l "$selector" --dry-run=server
        return
    fi
    kubectl "$@" -n "$namespace" delete job "$job" --ignore-not-found --wait
    apply "$@"
    waited=0
    while :; do
        # A server that does not answer is asked again.
        state=$(kubectl "$@" -n "$namespace" get job "$job" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}') || state=
        case " $state " in
            *" Complete "*) return 0 ;;
            *" Failed "*)
                kubectl "$@" -n "$namespace" logs "job/$job" --tail=50 >&2 || true
                say "$job failed; nothing after it was changed"
                exit 1 ;;
        esac
        again || break
    done
    # No image, no secret, no room: the pod's events say it.
    kubectl "$@" -n "$namespace" describe pods -l "job-name=$job" | tail -n 25 >&2 || true
    say "$job did not end within $TIMEOUT_S s; nothing after it was changed"
    exit 1
}

follow() { # <Rollout> [options of kubectl]: until it has replaced all pods
    name=$1
    shift
    wanted=$(kubectl "$@" -n "$namespace" get deployment "$name" -o 'jsonpath={.metadata.generation}')
    waited=0
    while :; do
        state=$(kubectl "$@" -n "$namespace" get rollout "$name" -o 'jsonpath={.status.workloadObservedGeneration}|{.metadata.generation}|{.status.observedGeneration}|{.status.replicas}|{.status.updatedReplicas}|{.status.phase}') || state=
        IFS='|' read -r seen generation observed replicas updated phase <<EOF
$state
EOF
        # Until it has seen the new template, what it says is about the version before.
        if [ "${seen:-0}" -ge "$wanted" ] && [ "$generation" = "$observed" ]; then
            case "$phase" in
                Healthy) if [ "$replicas" = "$updated" ]; then return 0; fi ;;
                Degraded)
                    say "$name went back, or cannot go on: kubectl -n $namespace describe rollout $name"
                    exit 1 ;;
            esac
        fi
        again || break
    done
    say "$name was not done within $TIMEOUT_S s: ${phase:-no status}"
    exit 1
}

leaving() { # [options of kubectl]: pods that were told to go; they execute runs until they are gone
    kubectl "$@" -n "$namespace" get pods -l "app.kubernetes.io/name=waystation,$label in (api,worker)" \
        -o 'go-template={{range .items}}{{if .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}'
}

bid_farewell() { # [options of kubectl]: until the pods are gone that leave now; who leaves later is of the new version
    old=$(leaving "$@")
    [ -n "$old" ] || return 0
    say "waiting for processes of the version before to finish: $old"
    waited=0
    while again; do
        now=$(leaving "$@") || now=$old
        left=
        for pod in $old; do
            case " $now " in *" $pod "*) left="$left $pod" ;; esac
        done
        [ -n "$left" ] || return 0
    done
    say "$left did not go within $TIMEOUT_S s; migrations of the phase post were not run"
    exit 1
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
            follow "$deployment" "$@"
        elif has "Deployment/$deployment"; then
            kubectl "$@" -n "$namespace" rollout status "deployment/$deployment" --timeout="${TIMEOUT_S}s"
        fi
    done
    if has Job/waystation-migrate-post; then bid_farewell "$@"; fi
fi
migrate post "$@"
say done
