/* SPDX-License-Identifier: GPL-2.0-only */
/* BPF instructions by hand, for what no compiler writes. */
#ifndef INSN_H
#define INSN_H

#include <linux/bpf.h>

#define INSN(c, d, s, o, i) \
	((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })

#define ALU_K(width, op, dst, imm) INSN((width) | BPF_K | (op), dst, 0, 0, imm)
#define ALU_X(width, op, dst, src) INSN((width) | BPF_X | (op), dst, src, 0, 0)
#define MOV_K(dst, imm)		   ALU_K(BPF_ALU64, BPF_MOV, dst, imm)
#define MOV_X(dst, src)		   ALU_X(BPF_ALU64, BPF_MOV, dst, src)
#define LDX(size, dst, src, off)   INSN(BPF_LDX | BPF_MEM | (size), dst, src, off, 0)
#define STX(size, dst, src, off)   INSN(BPF_STX | BPF_MEM | (size), dst, src, off, 0)
#define ST(size, dst, off, imm)	   INSN(BPF_ST | BPF_MEM | (size), dst, 0, off, imm)
#define ATOMIC(size, op, dst, src, off) INSN(BPF_STX | BPF_ATOMIC | (size), dst, src, off, op)
#define JMP_K(op, dst, imm, off)   INSN(BPF_JMP | BPF_K | (op), dst, 0, off, imm)
#define JA(off)			   INSN(BPF_JMP | BPF_JA, 0, 0, off, 0)
#define MAY_GOTO(off)		   INSN(BPF_JMP | BPF_JCOND, 0, BPF_MAY_GOTO, off, 0)
#define EXIT			   INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
#define CALL(src, off, imm)	   INSN(BPF_JMP | BPF_CALL, 0, src, off, imm)
/* 64 bits in two instructions; with a source the first says what they name */
#define LD_IMM64(dst, src, lo, hi) \
	INSN(BPF_LD | BPF_IMM | BPF_DW, dst, src, 0, lo), INSN(0, 0, 0, 0, hi)
/* a 32-bit offset into the arena becomes a pointer that can be read and written */
#define CAST_KERN(dst, src) \
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, BPF_ADDR_SPACE_CAST, 1)
/* and an address that user space knows */
#define CAST_USER(dst, src) \
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, BPF_ADDR_SPACE_CAST, 1 << 16)

#endif
