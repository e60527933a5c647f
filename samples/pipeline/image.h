/* image.h - pictures in memory, and as binary PPM (P6) and PGM (P5) files. */
#ifndef PIPELINE_IMAGE_H
#define PIPELINE_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#define IMAGE_SIDE_MAX 16384

typedef struct image {
    int width, height;
    uint8_t *pixels; /* red, green, blue, row by row */
} image;

/* A black one; false without memory. */
bool image_init(image *img, int width, int height);
void image_clear(image *img);

/* NULL, or why not. A file appears whole or not at all. */
const char *image_read(image *img, const char *path);
const char *image_write(const image *img, const char *path);

/* The same picture with its longer side `side` pixels long; each pixel is the mean of those it
 * stands for. */
bool image_scale(const image *from, int side, image *to);
/* Put one onto another, at x, y; what does not fit is cut off. */
void image_put(image *onto, const image *img, int x, int y);
/* Something to look at: a part of the Mandelbrot set, each `number` another one. */
bool image_draw(image *img, int number, int width, int height);

#endif
