#!/bin/sh
# Process 1 of a board that `systemd_board` stands up, until systemd takes its place: it makes the board's file system.
#
# It runs in namespaces of its own (mount, process, IPC, host name, cgroup). The root is this machine's, seen through an
# overlay whose changes stay in memory, so that the board has this machine's systemd and libraries and can harm nothing.
# None of this machine's services, mounts and generators is started; the network is this machine's.
#
# Arguments: an empty folder; Python's prefix; site-packages; the repository; then a line per cgroup hierarchy:
# NAME TYPE OPTIONS.
set -eu
folder=$1 python=$2 site=$3 repository=$4
shift 4

mount -t tmpfs -o mode=755 board "$folder"
mkdir "$folder/root"
over() { # over NAME LOWER TARGET: LOWER at TARGET, with what changes kept in memory
    mkdir -p "$folder/$1/upper" "$folder/$1/work" "$3"
    mount -t overlay -o "lowerdir=$2,upperdir=$folder/$1/upper,workdir=$folder/$1/work" board "$3"
}
over system / "$folder/root"
cd "$folder/root"
mountpoint -q . # nothing below may ever be written to this machine's own files

mount -t proc -o nosuid,nodev,noexec proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755 dev dev
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    set_to=${node#* }
    mknod -m 666 "dev/${node%% *}" c "${set_to% *}" "${set_to#* }"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp

# The cgroup namespace makes each of these begin at the group that this process was put into.
mount -t tmpfs -o mode=755 cgroups sys/fs/cgroup
while [ $# -ge 3 ]; do
    if [ "$1" = . ]; then
        umount sys/fs/cgroup
        mount -t cgroup2 cgroup sys/fs/cgroup
    else
        mkdir "sys/fs/cgroup/$1"
        mount -t "$2" -o "$3" cgroup "sys/fs/cgroup/$1"
    fi
    shift 3
done
# systemd would mount the controllers that this machine leaves alone.
if ! [ -e sys/fs/cgroup/cgroup.procs ]; then
    while read -r name _; do
        case $name in '#'*) continue ;; esac
        [ -e "sys/fs/cgroup/$name" ] || { mkdir "sys/fs/cgroup/$name" && mount -t tmpfs -o ro none "sys/fs/cgroup/$name"; }
    done <proc/cgroups
    mount -o remount,ro sys/fs/cgroup
fi

for hidden in usr/lib/systemd/system-generators etc/systemd/system etc/systemd/system-generators \
    usr/lib/systemd/system/*.target.wants usr/lib/systemd/system-environment-generators; do
    [ ! -d "$hidden" ] || mount -t tmpfs -o mode=755 none "$hidden"
done
: >etc/fstab
od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >etc/machine-id
printf '[Journal]\nAudit=no\nStorage=volatile\n' >etc/systemd/journald.conf
printf '[Unit]\nWants=systemd-journald.service\nAfter=systemd-journald.service\n' >etc/systemd/system/board.target

# What `python3 -m venv /opt/edgeflock` and pip leave on a board, of this machine's Python and packages.
mkdir -p opt/edgeflock/bin opt/edgeflock/src/agent opt/edgeflock/src/deploy
version=$(basename "$(dirname "$site")")
case $python in
    /usr | /usr/local | /opt/*) ;;
    *) # services see no homes
        mkdir -p opt/python
        mount --bind "$python" opt/python
        python=/opt/python
        echo /opt/python/lib >etc/ld.so.conf.d/00-python.conf
        chroot . ldconfig # else it would take a libpython of this machine's
        ;;
esac
ln -s "$python/bin/$version" opt/edgeflock/bin/python
printf 'home = %s/bin\ninclude-system-site-packages = false\n' "$python" >opt/edgeflock/pyvenv.cfg
over packages "$site" "opt/edgeflock/lib/$version/site-packages"
mount --bind "$repository/agent" opt/edgeflock/src/agent
mount --bind "$repository/deploy" opt/edgeflock/src/deploy
printf '/opt/edgeflock/src/agent\n/opt/edgeflock/src/deploy\n' >"opt/edgeflock/lib/$version/site-packages/0-board.pth"
cat >opt/edgeflock/bin/edgeflock-agent <<'PROGRAM'
#!/opt/edgeflock/bin/python
from edgeflock_agent.cli import main

main()
PROGRAM
chmod 755 opt/edgeflock/bin/edgeflock-agent

hostname board
mkdir -p mnt
pivot_root . mnt
umount -l /mnt
exec env -i container=namespaces PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --unit=board.target --show-status=no --log-target=journal-or-kmsg
