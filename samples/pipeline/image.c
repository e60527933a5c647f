/* image.c - see image.h. */
#include "image.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint8_t *
pixel(const image *img, int x, int y)
{
    return img->pixels + ((size_t)y * (size_t)img->width + (size_t)x) * 3;
}

bool
image_init(image *img, int width, int height)
{
    if (width < 1 || height < 1 || width > IMAGE_SIDE_MAX || height > IMAGE_SIDE_MAX)
        return false;
    *img = (image){ width, height, calloc((size_t)width * (size_t)height, 3) };
    return img->pixels != NULL;
}

void
image_clear(image *img)
{
    free(img->pixels);
    *img = (image){ 0 };
}

/* --- files --- */

/* The next number of a header, behind blanks and comments; -1 when there is none. */
static int
read_number(FILE *file)
{
    int c, n = 0, digits = 0;
    while ((c = getc(file)) == '#' || c == ' ' || c == '\t' || c == '\r' || c == '\n')
        while (c == '#' && (c = getc(file)) != '\n' && c != EOF)
            c = '#';
    for (; c >= '0' && c <= '9' && n < 100000; c = getc(file), digits++)
        n = n * 10 + (c - '0');
    return digits ? n : -1; /* the blank behind the number is read */
}

static const char *
read_body(image *img, FILE *file, bool gray)
{
    size_t n = (size_t)img->width * (size_t)img->height;
    if (fread(img->pixels, gray ? 1 : 3, n, file) != n)
        return "the file is too short";
    for (size_t i = n; gray && i-- > 0;)
        memset(img->pixels + 3 * i, img->pixels[i], 3);
    return NULL;
}

const char *
image_read(image *img, const char *path)
{
    const char *why = NULL;
    *img = (image){ 0 };
    FILE *file = fopen(path, "rb");
    if (!file)
        return strerror(errno);
    int magic = getc(file) == 'P' ? getc(file) : EOF;
    int width = magic == '5' || magic == '6' ? read_number(file) : -1;
    int height = width > 0 ? read_number(file) : -1;
    if (height < 1 || read_number(file) != 255)
        why = "it is no binary PPM or PGM file with values up to 255";
    else if (!image_init(img, width, height))
        why = "it is too big";
    else
        why = read_body(img, file, magic == '5');
    fclose(file);
    if (why)
        image_clear(img);
    return why;
}

const char *
image_write(const image *img, const char *path)
{
    char draft[4096];
    if (snprintf(draft, sizeof(draft), "%s.%d", path, (int)getpid()) >= (int)sizeof(draft))
        return "the name is too long";
    FILE *file = fopen(draft, "wb");
    if (!file)
        return strerror(errno);
    fprintf(file, "P6\n%d %d\n255\n", img->width, img->height);
    fwrite(img->pixels, 3, (size_t)img->width * (size_t)img->height, file);
    bool ok = !ferror(file);
    if (fclose(file) != 0 || !ok || rename(draft, path) != 0) {
        const char *why = strerror(errno);
        remove(draft);
        return why;
    }
    return NULL;
}

/* --- pictures --- */

bool
image_scale(const image *from, int side, image *to)
{
    int longer = from->width > from->height ? from->width : from->height;
    int width = from->width * side / longer, height = from->height * side / longer;
    if (!image_init(to, width ? width : 1, height ? height : 1))
        return false;
    for (int y = 0; y < to->height; y++)
        for (int x = 0; x < to->width; x++) {
            int left = x * from->width / to->width, right = (x + 1) * from->width / to->width;
            int top = y * from->height / to->height, below = (y + 1) * from->height / to->height;
            unsigned long sums[3] = { 0 }, n = 0;
            for (int v = top; v < below || v == top; v++)
                for (int u = left; u < right || u == left; u++, n++)
                    for (int c = 0; c < 3; c++)
                        sums[c] += pixel(from, u, v)[c];
            for (int c = 0; c < 3; c++)
                pixel(to, x, y)[c] = (uint8_t)(sums[c] / n);
        }
    return true;
}

void
image_put(image *onto, const image *img, int x, int y)
{
    for (int row = 0; row < img->height && y + row < onto->height; row++) {
        int n = img->width < onto->width - x ? img->width : onto->width - x;
        if (n > 0)
            memcpy(pixel(onto, x, y + row), pixel(img, 0, row), (size_t)n * 3);
    }
}

bool
image_draw(image *img, int number, int width, int height)
{
    static const struct view {
        double re, im, size;
    } views[] = { { -0.5, 0, 3 },     { -0.745, 0.11, 0.03 },  { -1.25, 0.02, 0.1 },
                  { 0.275, 0, 0.05 }, { -0.16, 1.0405, 0.03 }, { -1.7687, 0.0017, 0.012 } };
    const struct view *view = &views[(unsigned)number % (sizeof(views) / sizeof(*views))];
    if (!image_init(img, width, height))
        return false;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            double re = view->re + (x - width / 2.0) * view->size / width;
            double im = view->im + (y - height / 2.0) * view->size / width;
            double a = 0, b = 0;
            int turns = 0;
            for (; turns < 256 && a * a + b * b < 16; turns++) {
                double next = a * a - b * b + re;
                b = 2 * a * b + im;
                a = next;
            }
            uint8_t *p = pixel(img, x, y);
            for (int c = 0; c < 3 && turns < 256; c++)
                p[c] = (uint8_t)(127.5 + 127.5 * cos(turns * 0.1 + number + c * 2.1));
        }
    return true;
}
