/* Counts guest instructions between two marks: a plugin of qemu-user.
 *
 *     qemu-aarch64 -plugin file=count.so,out=FILE PROGRAM
 *
 * A program marks a region by closing the file numbers -77001 (start) and -77002 (end), which does no harm anywhere
 * (edgekit/runtimes/workers/harness.py). Each region that ends adds a line to FILE: its number of instructions.
 *
 * A system call ends a translation block, so adding a block's length as it starts counts a region exactly. The sum is
 * not atomic: count one thread. Declared here is what is used of qemu's plugin interface (version 1, up to qemu 8),
 * since distributions do not package its header.
 */

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define CLOSE 57 /* aarch64 */
#define START (-77001)
#define END (-77002)

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*tb_trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*syscall_cb)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, tb_trans_cb);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

EXPORT int qemu_plugin_version = 1;

static FILE *out;
static int inside;
static uint64_t executed, begun;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &executed,
                                             qemu_plugin_tb_n_insns(block));
}

static void called(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                   uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != CLOSE)
        return;
    if ((int32_t)a1 == START) {
        inside = 1;
        begun = executed;
    } else if ((int32_t)a1 == END && inside) {
        inside = 0;
        fprintf(out, "%llu\n", (unsigned long long)(executed - begun));
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4) != 0) {
        fprintf(stderr, "count: wants out=FILE\n");
        return -1;
    }
    out = fopen(argv[0] + 4, "w");
    if (out == NULL) {
        fprintf(stderr, "count: %s: %s\n", argv[0] + 4, strerror(errno));
        return -1;
    }
    setvbuf(out, NULL, _IOLBF, 0); /* a program that dies leaves the regions before */
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, called);
    return 0;
}
