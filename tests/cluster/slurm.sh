#!/usr/bin/env bash
# A real SLURM on this machine, for tests: two pretended nodes with two pretended GPUs each, accounting, no systemd.
#   slurm.sh run COMMAND...   up, COMMAND, down; also down when COMMAND fails or is interrupted
#   slurm.sh up | down        as root; packages that `up` installed are purged by `down` unless KEEP_SLURM=1
# Where SLURM cannot be had, `run` says why and ends with 0, or with 1 if CXRSCALE_REQUIRE_CLUSTER=1. That its packages
# cannot be installed is such a reason; that it does not start is an error.
set -euo pipefail

HOME_DIR=/var/lib/cxrscale-cluster
PACKAGES="slurmctld slurmd slurm-client slurmdbd munge mariadb-server"
PACKAGE_LIST=$HOME_DIR.packages # those that were not here before
CONFIGS="slurm.conf slurmdbd.conf gres.conf cgroup.conf"
DAEMONS="slurmd-b slurmd-a slurmctld slurmdbd mariadbd munged" # in the order in which they end
CPUS=8 MEMORY_MB=200000                                        # of each node, pretended; GPUS=0-1 and 2-3
NO_PACKAGES=75                                                 # status of `up`

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# Why SLURM cannot be had here, or nothing.
obstacle() {
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        echo "it takes root, or sudo without a password"
    elif ! command -v apt-get >/dev/null; then
        echo "there is no apt-get to install SLURM with"
    elif [ -e /etc/slurm/slurm.conf ] && ! grep -q "^ClusterName=cxrscale$" /etc/slurm/slurm.conf; then
        echo "this machine has a SLURM of its own: /etc/slurm/slurm.conf"
    elif pgrep -x slurmctld >/dev/null && ! as_root test -d $HOME_DIR; then
        echo "a slurmctld runs on this machine"
    elif probe=$(mktemp -u) && ! as_root mknod "$probe" c 1 3 2>/dev/null; then
        echo "mknod is not allowed here, and pretended GPUs are character devices"
    else
        as_root rm -f "$probe"
        if ! getent hosts "$(hostname -s)" >/dev/null; then echo "this machine's name, $(hostname -s), has no address"; fi
    fi
}

wait_for() { # SECONDS COMMAND...
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "timeout: $*" >&2; return 1; }
        sleep 0.2
    done
}

start() { # NAME COMMAND...
    local name=$1
    shift
    setsid nohup "$@" >>"$HOME_DIR/log/$name.out" 2>&1 </dev/null &
    echo $! >"$HOME_DIR/run/$name.pid"
}

install_packages() { # fails where apt does
    local planned new policy=/usr/sbin/policy-rc.d
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || return
    # shellcheck disable=SC2086
    planned=$(apt-get install -s --no-install-recommends $PACKAGES) || return
    new=$(awk '/^Inst/ && $3 !~ /^\[/ {print $2}' <<<"$planned")
    [ -n "$new" ] || return 0
    echo "Installing for the test: "$new
    echo "$new" >>$PACKAGE_LIST
    # No service starts by itself, where there is an init that would.
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; touch "$HOME_DIR/policy"; }
    # shellcheck disable=SC2086
    apt-get install -qq -y --no-install-recommends $PACKAGES >"$HOME_DIR/log/apt.out" 2>&1 ||
        { tail -20 "$HOME_DIR/log/apt.out"; return 100; }
    [ ! -e "$HOME_DIR/policy" ] || rm -f $policy "$HOME_DIR/policy"
}

write_configs() {
    local host etc=$HOME_DIR/etc i
    host=$(hostname -s)
    for i in 0 1 2 3; do mknod "$HOME_DIR/dev/nvidia$i" c 1 3; done # copies of /dev/null
    cat >"$etc/gres.conf" <<CONF
NodeName=$host Name=gpu File=$HOME_DIR/dev/nvidia[0-1]
NodeName=$host-b Name=gpu File=$HOME_DIR/dev/nvidia[2-3]
CONF
    echo "CgroupPlugin=cgroup/v1" >"$etc/cgroup.conf"
    cat >"$etc/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$HOME_DIR/munge/socket
DbdHost=localhost
DbdPort=36816
SlurmUser=root
LogFile=$HOME_DIR/log/slurmdbd.log
PidFile=$HOME_DIR/run/slurmdbd.own
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
CONF
    chmod 600 "$etc/slurmdbd.conf"
    cat >"$etc/slurm.conf" <<CONF
ClusterName=cxrscale
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=36817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$HOME_DIR/munge/socket,cred_expire=5
StateSaveLocation=$HOME_DIR/state
SlurmdSpoolDir=$HOME_DIR/spool/%n
SlurmctldPidFile=$HOME_DIR/run/slurmctld.own
SlurmdPidFile=$HOME_DIR/run/slurmd-%n.own
SlurmctldLogFile=$HOME_DIR/log/slurmctld.log
SlurmdLogFile=$HOME_DIR/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MinJobAge=300
KillWait=10
MailProg=/bin/true
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=36816
AccountingStoragePass=$HOME_DIR/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
NodeName=DEFAULT CPUs=$CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY_MB Gres=gpu:2
NodeName=$host NodeAddr=127.0.0.1 NodeHostname=$host Port=36818
NodeName=$host-b NodeAddr=127.0.0.1 NodeHostname=$host Port=36819
PartitionName=test Nodes=$host,$host-b Default=YES MaxTime=INFINITE State=UP
CONF
    # Job steps drop SLURM_CONF from the environment, so the configuration must be where SLURM looks by itself.
    for i in $CONFIGS; do ln -sfn "$etc/$i" "/etc/slurm/$i"; done
}

up() { # USER
    local began=$SECONDS host
    host=$(hostname -s)
    if [ -d $HOME_DIR ]; then KEEP_SLURM=1 down; fi # what a killed run left
    mkdir -p $HOME_DIR/{etc,state,spool,log,run,dev,munge,mysql}
    chmod 700 $HOME_DIR/mysql
    install_packages || exit $NO_PACKAGES
    write_configs
    (umask 077; head -c 1024 /dev/urandom >$HOME_DIR/munge/key)
    start munged munged --foreground --force --key-file=$HOME_DIR/munge/key --socket=$HOME_DIR/munge/socket \
        --pid-file=$HOME_DIR/munge/pid --seed-file=$HOME_DIR/munge/seed --log-file=$HOME_DIR/log/munged.log
    # Reached by a socket that root alone can open.
    mariadb-install-db --no-defaults --user=root --datadir=$HOME_DIR/mysql/data --skip-test-db >$HOME_DIR/log/db.out 2>&1
    start mariadbd mariadbd --no-defaults --user=root --datadir=$HOME_DIR/mysql/data --skip-networking \
        --skip-grant-tables --socket=$HOME_DIR/mysql/socket --innodb-flush-log-at-trx-commit=0
    export MYSQL_UNIX_PORT=$HOME_DIR/mysql/socket
    wait_for 30 mariadb-admin --no-defaults --socket=$HOME_DIR/mysql/socket ping
    start slurmdbd slurmdbd -D
    wait_for 30 sacctmgr -n list cluster
    sacctmgr -i -Q add cluster cxrscale >/dev/null
    sacctmgr -i -Q add account study >/dev/null
    sacctmgr -i -Q add user "$1" account=study >/dev/null
    start slurmctld slurmctld -D
    wait_for 20 scontrol ping
    start slurmd-a slurmd -D -N "$host"
    start slurmd-b slurmd -D -N "$host-b"
    wait_for 30 sh -c '[ "$(sinfo -h -N -t idle | wc -l)" = 2 ]'
    sinfo --version
    sinfo -N -o "%N %t %c CPUs %m MB %G"
    echo "SLURM is up after $((SECONDS - began)) s"
}

down() {
    local name pid
    if [ -d $HOME_DIR ] && scontrol ping >/dev/null 2>&1; then
        scancel --partition=test || true
        wait_for 15 sh -c '[ -z "$(squeue -h)" ]' || true
    fi
    for name in $DAEMONS; do
        pid=$(cat "$HOME_DIR/run/$name.pid" 2>/dev/null) || continue
        kill "$pid" 2>/dev/null || continue
        wait_for 10 sh -c "! kill -0 $pid" || kill -9 "$pid" || true
    done
    for name in $CONFIGS; do
        case $(readlink "/etc/slurm/$name") in "$HOME_DIR"/*) rm -f "/etc/slurm/$name" ;; esac
    done
    [ ! -e $HOME_DIR/policy ] || rm -f /usr/sbin/policy-rc.d
    rm -rf $HOME_DIR
    [ -s $PACKAGE_LIST ] || return 0
    if [ "${KEEP_SLURM:-0}" = 1 ]; then
        echo "SLURM is down, its packages stay. Until they go (tests/cluster/slurm.sh down) every snakemake call that"
        echo "looks for SLURM waits 10 s for an answer."
        return 0
    fi
    echo "Purging what was installed for the test"
    # shellcheck disable=SC2046
    DEBIAN_FRONTEND=noninteractive apt-get purge -qq -y $(cat $PACKAGE_LIST) >/dev/null 2>&1
    rm -f $PACKAGE_LIST
}

skip() { # REASON
    echo "SKIPPED: the tests on a real SLURM did not run: $1."
    [ "${CXRSCALE_REQUIRE_CLUSTER:-0}" != 1 ] || { echo "CXRSCALE_REQUIRE_CLUSTER=1: this is an error."; exit 1; }
    exit 0
}

run() { # COMMAND...
    local reason status
    reason=$(obstacle)
    [ -z "$reason" ] || skip "$reason"
    trap 'as_root env KEEP_SLURM="${KEEP_SLURM:-0}" "$0" down' EXIT
    trap 'exit 130' INT TERM HUP
    as_root "$0" up "$(id -un)" || {
        status=$?
        [ $status != $NO_PACKAGES ] || skip "Debian's packages could not be installed"
        exit $status
    }
    CXRSCALE_CLUSTER=1 "$@"
}

case ${1:-} in
run | up | down) "$@" ;;
*) grep "^#  " "$0" && exit 2 ;;
esac
