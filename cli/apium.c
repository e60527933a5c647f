/* apium - the command: everything is in libapium. */
#include <apium/status.h>

int
main(void)
{
    return 0;
}
