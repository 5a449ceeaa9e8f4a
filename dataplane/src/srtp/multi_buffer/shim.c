/* What the multi-buffer backend asks of intel-ipsec-mb. Only the library's own header may speak of its manager and its jobs: their
 * layout differs from version to version, and its calls are macros over them. Nothing here allocates, keeps or decides anything;
 * `library.rs` says what each function is given. */

#include <intel-ipsec-mb.h>
#include <emmintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if IMB_VERSION_NUM < 0x10300
#error "intel-ipsec-mb 1.3 or newer is needed"
#endif

/* As `PACKETS_MAX`, `CmKey` and `Request` in library.rs. */
#define PACKETS_MAX 128
_Static_assert(PACKETS_MAX <= IMB_MAX_BURST_SIZE, "one burst takes them all");

struct cm_key {
        uint8_t round_keys[11 * 16];
        uint8_t inner[20];
        uint8_t outer[20];
};

struct request {
        uint8_t *packet;
        const struct cm_key *key;
        uint32_t header_len;
        uint32_t clear_len;
        uint8_t iv[16];
};

/* The jobs of one burst and their tags, then the library's manager. */
struct memory {
        IMB_JOB jobs[PACKETS_MAX];
        uint8_t tags[PACKETS_MAX][20];
        _Alignas(64) uint8_t manager[];
};

static IMB_MGR *manager(const void *memory)
{
        return (IMB_MGR *)((uintptr_t)memory + offsetof(struct memory, manager));
}

size_t ringmain_mb_memory_size(void)
{
        return sizeof(struct memory) + imb_get_mb_mgr_size();
}

/* Whether this CPU and this library have what the backend is for. */
int ringmain_mb_init(void *memory)
{
        const uint64_t wanted = IMB_CPUFLAGS_AVX512 | IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ | IMB_FEATURE_SAFE_DATA |
                                IMB_FEATURE_SELF_TEST | IMB_FEATURE_SELF_TEST_PASS;
        IMB_ARCH arch = IMB_ARCH_NONE;
        IMB_MGR *mgr;

        if (imb_get_version() < IMB_VERSION_NUM)
                return 0;
        mgr = imb_set_pointers_mb_mgr(manager(memory), 0, 1);
        if (mgr == NULL)
                return 0;
        init_mb_mgr_auto(mgr, &arch);
        return imb_get_errno(mgr) == 0 && arch == IMB_ARCH_AVX512 && (mgr->features & wanted) == wanted;
}

const char *ringmain_mb_version(void)
{
        return imb_get_version_str();
}

void ringmain_mb_cm_key(const void *memory, const uint8_t key[16], const uint8_t auth[20], struct cm_key *out)
{
        const IMB_MGR *mgr = manager(memory);
        _Alignas(16) uint8_t unused[sizeof(out->round_keys)];
        uint8_t pad[64];
        size_t at;

        IMB_AES_KEYEXP_128(mgr, key, out->round_keys, unused);
        memset(pad, 0x36, sizeof(pad));
        for (at = 0; at < 20; at++)
                pad[at] ^= auth[at];
        IMB_SHA1_ONE_BLOCK(mgr, pad, out->inner);
        for (at = 0; at < sizeof(pad); at++)
                pad[at] ^= 0x36 ^ 0x5c;
        IMB_SHA1_ONE_BLOCK(mgr, pad, out->outer);
        imb_clear_mem(pad, sizeof(pad));
        imb_clear_mem(unused, sizeof(unused));
}

/* Encrypts what follows each header, and writes ten bytes of HMAC-SHA1 over the packet and the four bytes behind it over these.
 * The library writes tags of twelve or twenty bytes, whatever else it is asked for, so they are written aside. */
int ringmain_mb_cm_seal(void *memory, const struct request *requests, uint32_t count)
{
        struct memory *own = memory;
        IMB_JOB *jobs = own->jobs;
        IMB_MGR *mgr = manager(memory);
        uint32_t at;

        for (at = 0; at < count; at++) {
                const struct request *request = &requests[at];
                IMB_JOB *job = &jobs[at];

                job->enc_keys = request->key->round_keys;
                job->dec_keys = request->key->round_keys;
                job->key_len_in_bytes = IMB_KEY_128_BYTES;
                job->src = request->packet;
                job->dst = request->packet + request->header_len;
                job->cipher_start_src_offset_in_bytes = request->header_len;
                job->msg_len_to_cipher_in_bytes = request->clear_len - request->header_len;
                job->hash_start_src_offset_in_bytes = 0;
                job->msg_len_to_hash_in_bytes = request->clear_len + 4;
                job->iv = request->iv;
                job->iv_len_in_bytes = 16;
                job->auth_tag_output = own->tags[at];
                job->auth_tag_output_len_in_bytes = 12;
                job->u.HMAC._hashed_auth_key_xor_ipad = request->key->inner;
                job->u.HMAC._hashed_auth_key_xor_opad = request->key->outer;
                job->status = IMB_STATUS_BEING_PROCESSED;
                job->cipher_mode = IMB_CIPHER_CNTR;
                job->cipher_direction = IMB_DIR_ENCRYPT;
                job->hash_alg = IMB_AUTH_HMAC_SHA_1;
                job->chain_order = IMB_ORDER_CIPHER_HASH;
        }
        if (IMB_SUBMIT_CIPHER_BURST(mgr, jobs, count, IMB_CIPHER_CNTR, IMB_DIR_ENCRYPT, IMB_KEY_128_BYTES) != count ||
            IMB_SUBMIT_HASH_BURST(mgr, jobs, count, IMB_AUTH_HMAC_SHA_1) != count)
                return 0;
        for (at = 0; at < count; at++)
                memcpy(requests[at].packet + requests[at].clear_len, own->tags[at], 10);
        return 1;
}

size_t ringmain_mb_gcm_key_size(void)
{
        return sizeof(struct gcm_key_data);
}

void ringmain_mb_gcm_key(const void *memory, const uint8_t *key, int is_256, struct gcm_key_data *out)
{
        const IMB_MGR *mgr = manager(memory);

        if (is_256)
                IMB_AES256_GCM_PRE(mgr, key, out);
        else
                IMB_AES128_GCM_PRE(mgr, key, out);
}

/* The library reads the IV with one load, which waits for the store before it unless that was one store too. */
void ringmain_mb_gcm_seal(const void *memory, const struct gcm_key_data *key, int is_256, uint64_t iv_front,
                          uint64_t iv_back, const uint8_t *header, size_t header_len, const uint8_t *clear, uint8_t *payload,
                          size_t payload_len, uint8_t tag[16])
{
        const IMB_MGR *mgr = manager(memory);
        struct gcm_context_data context;
        __m128i halves = _mm_set_epi64x((int64_t)iv_back, (int64_t)iv_front);
        _Alignas(16) uint8_t iv[16];

        _mm_store_si128((__m128i *)iv, halves);
        if (is_256)
                IMB_AES256_GCM_ENC(mgr, key, &context, payload, clear, payload_len, iv, header, header_len, tag, 16);
        else
                IMB_AES128_GCM_ENC(mgr, key, &context, payload, clear, payload_len, iv, header, header_len, tag, 16);
}
