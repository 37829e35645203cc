/* Tries system calls and prints how each ended: name, then errno or 0, or the signal negated. */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRY(name, ...)                                                       \
    do {                                                                     \
        errno = 0;                                                           \
        long result = syscall(__VA_ARGS__);                                  \
        printf("%s %d\n", name, result < 0 ? errno : 0);                     \
        fflush(stdout);                                                      \
    } while (0)

#define HIGH(low) (0x700000000L | (low))

#if defined(__x86_64__)
static void call_of_i386(void) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(359L), "b"(1L), "c"(1L), "d"(0L) : "memory");
}

static void call_of_x32(void) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(0x40000000L + SYS_socket), "D"(1L), "S"(1L), "d"(0L)
                     : "rcx", "r11", "memory");
}

static void try_apart(const char *name, void (*call)(void)) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        call();
        _exit(0);
    }
    waitpid(child, &status, 0);
    printf("%s %d\n", name, WIFSIGNALED(status) ? -WTERMSIG(status) : 0);
    fflush(stdout);
}
#endif

int main(void) {
    int pair[2];
    char byte = 'x';

    TRY("socket-unix", SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    TRY("socket-unix-high", SYS_socket, HIGH(AF_UNIX), SOCK_STREAM, 0);
    TRY("socket-unix-dgram", SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    TRY("socket-vsock", SYS_socket, 40, SOCK_STREAM, 0);
    TRY("socket-packet", SYS_socket, AF_PACKET, SOCK_RAW, 0);
    TRY("socket-alg", SYS_socket, 38, SOCK_SEQPACKET, 0);
    TRY("socket-bluetooth", SYS_socket, 31, SOCK_RAW, 0);
    TRY("socket-beyond", SYS_socket, 64, SOCK_STREAM, 0);
    TRY("socket-negative", SYS_socket, -1, SOCK_STREAM, 0);
    TRY("socket-netfilter", SYS_socket, AF_NETLINK, SOCK_RAW, 12);
    TRY("socket-netfilter-high", SYS_socket, HIGH(AF_NETLINK), SOCK_RAW, 12);
    TRY("pair-dgram", SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, pair);
    TRY("pair-dgram-cloexec", SYS_socketpair, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair);
    TRY("pair-dgram-high", SYS_socketpair, AF_UNIX, HIGH(SOCK_DGRAM), 0, pair);
    TRY("pair-inet", SYS_socketpair, AF_INET, SOCK_STREAM, 0, pair);
    TRY("io-uring", 425, 8, 0);
    TRY("io-uring-enter", 426, 0, 0, 0, 0, 0);
    TRY("io-uring-register", 427, 0, 0, 0, 0);
    TRY("clone3", 435, 0, 0);
    TRY("keyctl", SYS_keyctl, 0, -3, 0);
    TRY("add-key", SYS_add_key, "user", "a", "b", 1, -3);
    TRY("request-key", SYS_request_key, "user", "a", 0, 0);
    TRY("unshare-user", SYS_unshare, CLONE_NEWUSER);
    TRY("unshare-user-high", SYS_unshare, HIGH(CLONE_NEWUSER));
    TRY("unshare-net", SYS_unshare, CLONE_NEWNET);
    TRY("unshare-time", SYS_unshare, 0x80);
    TRY("clone-user", SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    TRY("clone-user-high", SYS_clone, HIGH(CLONE_NEWUSER | SIGCHLD), 0, 0, 0, 0);
    TRY("setns", SYS_setns, 0, 0);
    TRY("mount", SYS_mount, "a", "/tmp", "tmpfs", 0, 0);
    TRY("umount", SYS_umount2, "/tmp", 2);
    TRY("open-tree", 428, -100, "/", 1);
    TRY("fsopen", 430, "tmpfs", 0);
    TRY("mount-setattr", 442, -100, "/", 0, 0, 0);
    TRY("chroot", SYS_chroot, "/tmp");
    TRY("bpf", SYS_bpf, 0, 0, 0);
    TRY("perf", SYS_perf_event_open, 0, 0, 0, 0, 0);
    TRY("userfaultfd", SYS_userfaultfd, 0);
    TRY("handle", SYS_open_by_handle_at, -100, 0, 0);
    TRY("vm-read", SYS_process_vm_readv, 1, 0, 0, 0, 0, 0);
    TRY("vm-write", SYS_process_vm_writev, 1, 0, 0, 0, 0, 0);
    TRY("type", SYS_ioctl, 0, (long)TIOCSTI, &byte);
    TRY("type-high", SYS_ioctl, 0, HIGH(TIOCSTI), &byte);
    TRY("paste", SYS_ioctl, 0, 0x541cL, &byte);
    TRY("paste-high", SYS_ioctl, 0, 0xffffffff0000541cL, &byte);

    TRY("allowed-tcp", SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    TRY("allowed-udp", SYS_socket, AF_INET, SOCK_DGRAM, 0);
    TRY("allowed-ipv6", SYS_socket, AF_INET6, SOCK_STREAM, 0);
    TRY("allowed-routes", SYS_socket, AF_NETLINK, SOCK_RAW, 0);
    TRY("allowed-pair", SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair);
    TRY("allowed-pair-of-packets", SYS_socketpair, AF_UNIX, SOCK_SEQPACKET, 0, pair);
    TRY("allowed-unshare", SYS_unshare, CLONE_FILES);
#if defined(__x86_64__)
    try_apart("i386", call_of_i386);
    try_apart("x32", call_of_x32);
#endif
    return 0;
}
