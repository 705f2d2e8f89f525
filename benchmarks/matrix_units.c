/* A matrix product as units of accelerators compute it: some products at once, added to a float32 accumulator. */
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { TILE = 256 };

/* The power of two of a number's leading bit, times a factor; of 0 it is 0. */
static inline double leading(double number, double factor) {
    uint64_t bits;
    double power;
    memcpy(&bits, &number, sizeof bits);
    bits &= 0x7ff0000000000000ULL;
    memcpy(&power, &bits, sizeof power);
    return power * factor;
}

static inline double cut(double number, double quantum) {
    return quantum == 0 ? number : trunc(number / quantum) * quantum;
}

/* c = a b, row by row; a has rows x terms, b terms x columns.
   So many terms at once are exact products, which are added to the accumulator. With bits > 0, each of them and the
   accumulator are first cut to so many bits below the leading one of the largest; with 0 their sum is exact. The sum is
   rounded to float32, to nearest or towards zero. */
void matrix_product(const float *a, const float *b, float *c, long rows, long terms, long columns, long at_once, long bits,
                    int towards_zero) {
    int before = fegetround();
    double unit = ldexp(1, 1 - (int)bits);
    if (towards_zero) fesetround(FE_TOWARDZERO);
    for (long first = 0; first < columns; first += TILE) {
        long wide = first + TILE < columns ? TILE : columns - first;
        for (long row = 0; row < rows; row++) {
            float *out = c + row * columns + first;
            memset(out, 0, wide * sizeof *out);
            for (long start = 0; start < terms; start += at_once) {
                long end = start + at_once < terms ? start + at_once : terms;
                double sum[TILE], quantum[TILE];
                for (long n = 0; n < wide; n++) sum[n] = out[n];
                if (bits) {
                    for (long n = 0; n < wide; n++) quantum[n] = fabs(sum[n]);
                    for (long k = start; k < end; k++) {
                        double factor = a[row * terms + k];
                        const float *other = b + k * columns + first;
                        for (long n = 0; n < wide; n++) {
                            double size = fabs(factor * (double)other[n]);
                            quantum[n] = size > quantum[n] ? size : quantum[n];
                        }
                    }
                    for (long n = 0; n < wide; n++) {
                        quantum[n] = leading(quantum[n], unit);
                        sum[n] = cut(sum[n], quantum[n]);
                    }
                }
                for (long k = start; k < end; k++) {
                    double factor = a[row * terms + k];
                    const float *other = b + k * columns + first;
                    if (bits)
                        for (long n = 0; n < wide; n++) sum[n] += cut(factor * (double)other[n], quantum[n]);
                    else
                        for (long n = 0; n < wide; n++) sum[n] += factor * (double)other[n];
                }
                for (long n = 0; n < wide; n++) out[n] = (float)sum[n];
            }
        }
    }
    fesetround(before);
}
