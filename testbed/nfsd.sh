# shellcheck shell=bash
# Sourced by suites behind lib.sh: the kernel's NFS server, over TCP and RDMA, of this machine.
#
#   bed_nfsd [MIB]    starts it; what it exports as its root is $EXPORT, a tmpfs of so many MiB holds all of $NFS
#   bed_nfsd_ends     a command for an item

NFS=/tmp/nfs
EXPORT=$NFS/export
KERNEL_RDMA_PORT=20049

bed_nfsd() {
    mkdir -p $NFS && mount -t tmpfs -o size="${1:-64}m" tmpfs $NFS || bed_die "no tmpfs"
    mkdir -p $EXPORT $NFS/lib/{sm,sm.bak,v4recovery,nfsdcltrack}
    touch $NFS/lib/{etab,rmtab,xtab,state}
    mount --bind $NFS/lib /var/lib/nfs || bed_die "no /var/lib/nfs"
    mount -t tmpfs tmpfs /run && mkdir -p /run/rpcbind /run/lock /run/sendsigs.omit.d /run/netns || bed_die "no /run"
    modprobe -a sunrpc nfsd nfs nfsv3 nfsv4 rpcrdma || bed_die "no NFS modules"
    mount -t nfsd nfsd /proc/fs/nfsd || bed_die "no nfsd"
    rpcbind -w || bed_die "no rpcbind"
    exportfs -o rw,no_root_squash,fsid=0,insecure,no_subtree_check "*:$EXPORT" || bed_die "no export"
    rpc.mountd || bed_die "no mountd"
    rpc.nfsd -V 3 -V 4 -V 4.1 -V 4.2 -G 10 -L 10 8 || bed_die "no nfsd"
    # Nobody has anything to reclaim.
    echo Y >/proc/fs/nfsd/v4_end_grace || bed_die "nfsd has a period of grace"
    echo "rdma $KERNEL_RDMA_PORT" >/proc/fs/nfsd/portlist || bed_die "no nfsd over RDMA"
}
bed_nfsd_ends() {
    rpc.nfsd 0 && exportfs -au || return
    # They keep the directory busy until they are gone.
    timeout 30 killall -w rpc.mountd rpcbind 2>/dev/null
    umount /proc/fs/nfsd /var/lib/nfs && umount -l $NFS /run
}
