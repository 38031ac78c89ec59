#!/bin/sh
# SPDX-License-Identifier: MIT
#
# First process of the user-mode Linux that record.sh boots. The host's files are its root, read-only; all that is written
# is below /run, in memory, but for /run/disk, the disk whose writes are logged.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null # the kernel may have done so
echo BOOTED
for word in $(cat /proc/cmdline); do
    case $word in workload=*) workload=${word#workload=} ;; esac
done

# The workload may lie in /run itself, so read it before something hides it.
script=$(cat "$workload")
mount -t tmpfs run /run
printf '%s\n' "$script" >/run/workload.sh

drivers=/usr/lib/uml/modules/$(uname -r)/kernel/drivers
insmod "$drivers/dax/dax.ko" 2>/dev/null # not in every build
insmod "$drivers/md/dm-mod.ko"
insmod "$drivers/md/dm-log-writes.ko"
dmsetup create logged --table "0 $(blockdev --getsz /dev/ubda) log-writes /dev/ubda /dev/ubdb"
mknod /run/logged b "$(dmsetup info -c --noheadings -o major logged)" "$(dmsetup info -c --noheadings -o minor logged)"

# shellcheck disable=SC2016 # for the script that is written
printf '#!/bin/sh\nexec dmsetup message logged 0 mark "$*"\n' >/run/ack
chmod +x /run/ack
mkdir /run/disk
mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /run/logged && mount /run/logged /run/disk && /run/ack MOUNTED

sh /run/workload.sh
echo "WORKLOAD exit $?"
umount /run/disk
dmsetup remove logged && echo RECORDED
echo o >/proc/sysrq-trigger
sleep 60 # the first process must not end before the power does
