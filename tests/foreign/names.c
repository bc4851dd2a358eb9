/* A resolver with one name more: NAMES_NAME stands for the addresses in the file NAMES_FILE, one a line, read each time. An empty
   file is a name that nobody knows; without the file nobody can say. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int (*resolver)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    resolver real = (resolver)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *name = getenv("NAMES_NAME"), *path = getenv("NAMES_FILE");
    if (!node || !name || !path || strcmp(node, name) != 0) return real(node, service, hints, found);
    FILE *file = fopen(path, "r");
    if (!file) return EAI_AGAIN;
    char line[64];
    struct addrinfo **end = found;
    *found = NULL;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        /* Each is an allocation of the C library's, which frees what hangs together. */
        if (real(line, service, hints, end) == 0) while (*end) end = &(*end)->ai_next;
    }
    fclose(file);
    return *found ? 0 : EAI_NONAME;
}
