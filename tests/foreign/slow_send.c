/* A C library whose send(2) sleeps for SLOW_SEND_MS, as one with a bug would, on sockets of the Internet; those that the probe
   is watched through are of another family. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

ssize_t send(int fd, const void *bytes, size_t len, int flags) {
    static ssize_t (*real)(int, const void *, size_t, int);
    const char *ms = getenv("SLOW_SEND_MS");
    struct sockaddr address;
    socklen_t size = sizeof address;
    if (ms && getsockname(fd, &address, &size) == 0 && address.sa_family == AF_INET) {
        struct timespec pause = {atol(ms) / 1000, atol(ms) % 1000 * 1000000};
        /* A signal ends a nanosleep early, whoever sent it. */
        while (nanosleep(&pause, &pause) != 0);
    }
    if (!real) real = (ssize_t (*)(int, const void *, size_t, int))dlsym(RTLD_NEXT, "send");
    return real(fd, bytes, len, flags);
}
