/* apium - the command: everything is in libapium. */
#include <apium/app.h>

int
main(int argc, char **argv)
{
    return apium_main(argc, argv, "apium", NULL);
}
