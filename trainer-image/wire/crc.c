/* CRC32C: the cyclic redundancy check with Castagnoli's polynomial, 0x1edc6f41, reflected (RFC 3720, appendix B.4).
 *
 * The CPU's crc32 instruction can start every cycle but ends after three, so one stream leaves it idle two thirds of
 * the time: three run side by side over thirds of a block and are put together afterwards. Appending zero bytes is
 * linear over the bits of a CRC, so "the CRC of A followed by as many zeros as B is long" is four table look-ups
 * (V. Gopal et al.: "Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction", Intel, 2011).
 */
#include "wire/net_internal.h"

#include <endian.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#ifdef __aarch64__
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

/* Tables of linear maps: the entry of a byte is the sum (exclusive or) of its bits' entries, so eight numbers do. */
#define BIT(n, i, value) (((n) >> (i)&1U) * (value))
#define ENTRY(n, a, b, c, d, e, f, g, h)                                                                               \
    BIT(n, 0, a) ^ BIT(n, 1, b) ^ BIT(n, 2, c) ^ BIT(n, 3, d) ^ BIT(n, 4, e) ^ BIT(n, 5, f) ^ BIT(n, 6, g) ^           \
        BIT(n, 7, h)
#define FOUR(n, ...)                                                                                                   \
    ENTRY(n, __VA_ARGS__), ENTRY((n) + 1U, __VA_ARGS__), ENTRY((n) + 2U, __VA_ARGS__), ENTRY((n) + 3U, __VA_ARGS__)
#define SIXTEEN(n, ...)                                                                                                \
    FOUR(n, __VA_ARGS__), FOUR((n) + 4U, __VA_ARGS__), FOUR((n) + 8U, __VA_ARGS__), FOUR((n) + 12U, __VA_ARGS__)
#define SIXTY_FOUR(n, ...)                                                                                             \
    SIXTEEN(n, __VA_ARGS__), SIXTEEN((n) + 16U, __VA_ARGS__), SIXTEEN((n) + 32U, __VA_ARGS__),                         \
        SIXTEEN((n) + 48U, __VA_ARGS__)
#define TABLE(...)                                                                                                     \
    {                                                                                                                  \
        SIXTY_FOUR(0U, __VA_ARGS__), SIXTY_FOUR(64U, __VA_ARGS__), SIXTY_FOUR(128U, __VA_ARGS__),                      \
            SIXTY_FOUR(192U, __VA_ARGS__)                                                                              \
    }

/* slice[k][b]: the CRC register after byte b and k zero bytes, for plain code that takes eight bytes at a time. */
static const uint32_t slice[8][256] = {
    TABLE(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc, 0x82f63b78),
    TABLE(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604, 0xfbc3faf9),
    TABLE(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9, 0x8b277743),
    TABLE(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7, 0x52a0c93f),
    TABLE(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae, 0x6ea2d55c),
    TABLE(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb, 0x1c08b7d6),
    TABLE(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a, 0xf56e0ef4),
    TABLE(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32, 0x34019664),
};

enum { LANE = 1024 }; /* bytes of each of the three streams between two combinations */

/* after_lane[k][b]: a register holding byte b at its byte k, after LANE zero bytes. */
static const uint32_t after_lane[4][256] = {
    TABLE(0xfe314258, 0xf98ef241, 0xf6f19273, 0xe80f5217, 0xd5f2d2df, 0xae09d34f, 0x59ffd06f, 0xb3ffa0de),
    TABLE(0x6213374d, 0xc4266e9a, 0x8da0abc5, 0x1ead217b, 0x3d5a42f6, 0x7ab485ec, 0xf5690bd8, 0xef3e6141),
    TABLE(0xdb90b473, 0xb2cd1e17, 0x60764adf, 0xc0ec95be, 0x84355d8d, 0x0d86cdeb, 0x1b0d9bd6, 0x361b37ac),
    TABLE(0x6c366f58, 0xd86cdeb0, 0xb535cb91, 0x6f87e1d3, 0xdf0fc3a6, 0xbbf3f1bd, 0x720b958b, 0xe4172b16),
};

static uint32_t append_lane_of_zeros(uint32_t crc)
{
    return after_lane[0][crc & 255] ^ after_lane[1][crc >> 8 & 255] ^ after_lane[2][crc >> 16 & 255] ^
           after_lane[3][crc >> 24];
}

static uint64_t load_u64(const unsigned char *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static uint32_t crc_plain(uint32_t crc, const unsigned char *bytes, size_t length)
{
    for (; length >= 8; bytes += 8, length -= 8) {
        uint64_t word = le64toh(load_u64(bytes)) ^ crc;
        crc = slice[7][word & 255] ^ slice[6][word >> 8 & 255] ^ slice[5][word >> 16 & 255] ^
              slice[4][word >> 24 & 255] ^ slice[3][word >> 32 & 255] ^ slice[2][word >> 40 & 255] ^
              slice[1][word >> 48 & 255] ^ slice[0][word >> 56];
    }
    for (; length > 0; bytes++, length--)
        crc = crc >> 8 ^ slice[0][(crc ^ *bytes) & 255];
    return crc;
}

/* The same by instructions; `step8` and `step1` take eight bytes and one. A macro, as the functions that may use the
 * instructions are each compiled for them. */
#define CRC_BY_INSTRUCTION(name, target_attribute, word_type, step8, step1)                                            \
    target_attribute static uint32_t name(uint32_t start, const unsigned char *bytes, size_t length)                   \
    {                                                                                                                  \
        word_type crc = start;                                                                                         \
        for (; length >= (size_t)3 * LANE; bytes += (size_t)3 * LANE, length -= (size_t)3 * LANE) {                    \
            word_type middle = 0, last = 0;                                                                            \
            for (size_t i = 0; i < LANE; i += 8) {                                                                     \
                crc = step8(crc, load_u64(bytes + i));                                                                 \
                middle = step8(middle, load_u64(bytes + LANE + i));                                                    \
                last = step8(last, load_u64(bytes + (size_t)2 * LANE + i));                                            \
            }                                                                                                          \
            uint32_t both = append_lane_of_zeros((uint32_t)crc) ^ (uint32_t)middle;                                    \
            crc = append_lane_of_zeros(both) ^ (uint32_t)last;                                                         \
        }                                                                                                              \
        for (; length >= 8; bytes += 8, length -= 8)                                                                   \
            crc = step8(crc, load_u64(bytes));                                                                         \
        uint32_t end = (uint32_t)crc;                                                                                  \
        for (; length > 0; bytes++, length--)                                                                          \
            end = step1(end, *bytes);                                                                                  \
        return end;                                                                                                    \
    }

#if defined(__x86_64__)
CRC_BY_INSTRUCTION(crc_sse42, __attribute__((target("sse4.2"))), uint64_t, __builtin_ia32_crc32di,
                   __builtin_ia32_crc32qi)

/* Four registers of 64 bytes are carried over the data by multiplication without carries: what stands D bits before
 * other bits is worth x^D times as much, and that is taken modulo the polynomial, x^(D+32) for the first eight bytes of
 * each sixteen and x^(D-32) for the others, bits reflected, shifted by one (V. Gopal et al.: "Fast CRC Computation for
 * Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009). The last sixteen bytes go through the crc32
 * instruction. */
#define CRC_AVX512 __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.2")))

static const uint64_t by_2048_bits[2] = {0xdcb17aa4, 0xb9e02b86};
static const uint64_t by_512_bits[2] = {0x740eef02, 0x9e4addf8};
static const uint64_t by_128_bits[2] = {0xf20c0dfe, 0x14cd00bd6};

CRC_AVX512 static inline __m512i carry_512(__m512i from, const uint64_t factors[2], __m512i to)
{
    __m512i by = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)factors));
    __m512i first = _mm512_clmulepi64_epi128(from, by, 0x00), second = _mm512_clmulepi64_epi128(from, by, 0x11);
    return _mm512_xor_si512(_mm512_xor_si512(first, second), to);
}

CRC_AVX512 static inline __m128i carry_128(__m128i from, __m128i to)
{
    __m128i by = _mm_loadu_si128((const __m128i *)by_128_bits);
    __m128i first = _mm_clmulepi64_si128(from, by, 0x00), second = _mm_clmulepi64_si128(from, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(first, second), to);
}

CRC_AVX512 static uint32_t crc_avx512(uint32_t crc, const unsigned char *bytes, size_t length)
{
    enum { STRIDE = 256 };
    if (length < STRIDE)
        return crc_sse42(crc, bytes, length);
    __m512i a = _mm512_xor_si512(_mm512_loadu_si512(bytes), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    __m512i b = _mm512_loadu_si512(bytes + 64), c = _mm512_loadu_si512(bytes + 128),
            d = _mm512_loadu_si512(bytes + 192);
    for (bytes += STRIDE, length -= STRIDE; length >= STRIDE; bytes += STRIDE, length -= STRIDE) {
        a = carry_512(a, by_2048_bits, _mm512_loadu_si512(bytes));
        b = carry_512(b, by_2048_bits, _mm512_loadu_si512(bytes + 64));
        c = carry_512(c, by_2048_bits, _mm512_loadu_si512(bytes + 128));
        d = carry_512(d, by_2048_bits, _mm512_loadu_si512(bytes + 192));
    }
    b = carry_512(a, by_512_bits, b);
    c = carry_512(b, by_512_bits, c);
    d = carry_512(c, by_512_bits, d);
    __m128i last = carry_128(_mm512_extracti32x4_epi32(d, 0), _mm512_extracti32x4_epi32(d, 1));
    last = carry_128(last, _mm512_extracti32x4_epi32(d, 2));
    last = carry_128(last, _mm512_extracti32x4_epi32(d, 3));
    uint64_t end = _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(last));
    end = _mm_crc32_u64(end, (uint64_t)_mm_extract_epi64(last, 1));
    return crc_sse42((uint32_t)end, bytes, length);
}
#elif defined(__aarch64__)
CRC_BY_INSTRUCTION(crc_armv8, __attribute__((target("+crc"))), uint32_t, __crc32cd, __crc32cb)
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq"))
        return ~crc_avx512(~crc, data, length);
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc_sse42(~crc, data, length);
#elif defined(__aarch64__)
    if ((getauxval(AT_HWCAP) & HWCAP_CRC32) != 0)
        return ~crc_armv8(~crc, data, length);
#endif
    return ~crc_plain(~crc, data, length);
}

uint32_t crc32c_by(enum crc_way way, uint32_t crc, const void *data, size_t length)
{
    switch (way) {
#if defined(__x86_64__)
    case CRC_SSE42:
        return __builtin_cpu_supports("sse4.2") ? ~crc_sse42(~crc, data, length) : crc32c(crc, data, length);
#endif
    case CRC_PLAIN:
        return ~crc_plain(~crc, data, length);
    default:
        return crc32c(crc, data, length);
    }
}
