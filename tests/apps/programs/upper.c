/* Copies standard input to standard output in upper case: built static, an image that no library
 * enters. */
#include <ctype.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    char buf[4096];
    ssize_t n;
    if (waitpid(-1, NULL, WNOHANG | __WALL) != -1)
        return 3; /* a child that is not ours */
    while ((n = read(0, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            buf[i] = (char)toupper((unsigned char)buf[i]);
        for (ssize_t done = 0, w; done < n; done += w)
            if ((w = write(1, buf + done, (size_t)(n - done))) <= 0)
                return 1;
    }
    return n < 0;
}
