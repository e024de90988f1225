/* Where laboratories are found, and how one asks them. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shim/command/command.h"
#include "shim/command/lab.h"

bool lab_directory(char *out, size_t size)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    if (geteuid() == 0)
        snprintf(out, size, "/run/tcpshim");
    else if (runtime != NULL && runtime[0] == '/')
        snprintf(out, size, "%s/tcpshim", runtime);
    else
        snprintf(out, size, "/tmp/tcpshim-%u", (unsigned)geteuid());
    if (mkdir(out, 0700) < 0 && errno != EEXIST) {
        complain(0, "%s: %m", out);
        return false;
    }
    /* in /tmp somebody else may have been first */
    if (lstat(out, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
        (st.st_mode & 022) == 0)
        return true;
    complain(0, "%s is not a directory of yours alone; remove it or set XDG_RUNTIME_DIR", out);
    return false;
}

bool lab_address(const char *name, struct sockaddr_un *out)
{
    char directory[sizeof(out->sun_path) - LAB_NAME_MAX - 8];
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    if (*name == '\0' || *name == '.' || strlen(name) >= LAB_NAME_MAX ||
        name[strspn(name, allowed)] != '\0') {
        complain(0, "'%s' cannot be the name of a laboratory: letters, digits and -_. only", name);
        return false;
    }
    if (!lab_directory(directory, sizeof(directory)))
        return false;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if ((size_t)snprintf(out->sun_path, sizeof(out->sun_path), "%s/%s.lab", directory, name) <
        sizeof(out->sun_path))
        return true;
    complain(0, "%s: the path is too long for a socket; set XDG_RUNTIME_DIR to a short one",
             directory);
    return false;
}

int lab_connect(const char *name)
{
    struct sockaddr_un address;
    if (!lab_address(name, &address))
        return -EINVAL;
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    const int err = -errno;
    if (err == -ECONNREFUSED)
        unlink(address.sun_path); /* its daemon died */
    close(fd);
    return err;
}

static void put_fds(struct msghdr *h, void *room, const int *fds, unsigned n)
{
    h->msg_control = room;
    h->msg_controllen = CMSG_SPACE(n * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
}

int lab_answer(int connection, const struct lab_reply *reply, const int *fds, unsigned nfds)
{
    struct iovec iov = {.iov_base = (void *)reply, .iov_len = sizeof(*reply)};
    struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(2 * sizeof(int))] = {0};
    if (nfds > 0)
        put_fds(&h, room, fds, nfds);
    return sendmsg(connection, &h, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int lab_receive(int connection, struct lab_request *request)
{
    const ssize_t n = recv(connection, request, sizeof(*request), 0);
    if (n == (ssize_t)sizeof(*request))
        return 0;
    return n < 0 ? -errno : -EPROTO;
}

int lab_request(int connection, const struct lab_request *request, struct lab_reply *reply,
                int fds[2])
{
    struct iovec iov = {.iov_base = reply, .iov_len = sizeof(*reply)};
    _Alignas(struct cmsghdr) char room[CMSG_SPACE(2 * sizeof(int))];
    struct msghdr h = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    int got[2] = {-1, -1};
    if (send(connection, request, sizeof(*request), MSG_NOSIGNAL) < 0)
        return -errno;
    const ssize_t n = recvmsg(connection, &h, MSG_CMSG_CLOEXEC);
    if (n != (ssize_t)sizeof(*reply))
        return n < 0 ? -errno : -EPROTO; /* another version of the command made it */
    const struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    const size_t bytes = c != NULL ? c->cmsg_len - CMSG_LEN(0) : 0;
    if (bytes > 0)
        memcpy(got, CMSG_DATA(c), bytes < sizeof(got) ? bytes : sizeof(got));
    if (fds != NULL) {
        fds[0] = bytes > sizeof(int) ? got[0] : -1; /* without a user namespace there is one */
        fds[1] = bytes > sizeof(int) ? got[1] : got[0];
    } else {
        for (unsigned i = 0; i < 2; i++)
            if (got[i] >= 0)
                close(got[i]);
    }
    return -reply->error;
}
