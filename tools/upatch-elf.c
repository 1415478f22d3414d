// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <unistd.h>

#include "upatch-elf.h"

#define DEBUG_ROOT "/usr/lib/debug/.build-id"
/* What an attach of the other back end may overwrite: no place for a `ret`. */
#define ENTRY	   16
#define TEXT_MAX   (64u << 20)

int up_fail(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, UP_WHY, fmt, ap);
	va_end(ap);
	return -1;
}

/* --- objects --- */

static struct up_object *objects;

static Elf *elf_of(int fd)
{
	elf_version(EV_CURRENT);
	return elf_begin(fd, ELF_C_READ_MMAP, NULL);
}

/* The note is found by segments: sections may have been stripped. */
static void build_id_read(Elf *elf, struct up_object *o)
{
	size_t n = 0;

	elf_getphdrnum(elf, &n);
	for (size_t i = 0; i < n && !o->build_id_len; i++) {
		size_t at = 0, name, desc;
		Elf_Data *data;
		GElf_Phdr ph;
		GElf_Nhdr nh;

		if (!gelf_getphdr(elf, i, &ph) || ph.p_type != PT_NOTE)
			continue;
		data = elf_getdata_rawchunk(elf, ph.p_offset, ph.p_filesz,
					    ph.p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
		while (data && (at = gelf_getnote(data, at, &nh, &name, &desc)) > 0) {
			if (nh.n_type != NT_GNU_BUILD_ID || nh.n_namesz != 4 ||
			    memcmp(data->d_buf + name, "GNU", 4) || nh.n_descsz > UP_ID_MAX)
				continue;
			memcpy(o->build_id, data->d_buf + desc, nh.n_descsz);
			o->build_id_len = nh.n_descsz;
			break;
		}
	}
	for (__u32 i = 0; i < o->build_id_len; i++)
		sprintf(o->build_id_text + 2 * i, "%02x", o->build_id[i]);
}

struct up_object *up_object_known(dev_t dev, ino_t ino)
{
	for (struct up_object *o = objects; o; o = o->next)
		if (o->dev == dev && o->ino == ino)
			return o;
	return NULL;
}

struct up_object *up_object_get(int fd, dev_t dev, ino_t ino, const char *path, char *why)
{
	struct up_object *o = up_object_known(dev, ino);
	Elf *elf = NULL;
	GElf_Ehdr eh;

	if (o) {
		close(fd);
		return o;
	}
	elf = elf_of(fd);
	if (!elf || !gelf_getehdr(elf, &eh)) {
		up_fail(why, "%s is no ELF file", path);
	} else if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_machine != EM_X86_64) {
		up_fail(why, "%s is not for x86-64%s", path,
			eh.e_ident[EI_CLASS] == ELFCLASS32 ? ", but of 32 bits" : "");
	} else if (eh.e_type != ET_EXEC && eh.e_type != ET_DYN) {
		up_fail(why, "%s is neither a program nor a shared library", path);
	} else {
		o = calloc(1, sizeof(*o));
	}
	if (!o) {
		elf_end(elf);
		close(fd);
		return NULL;
	}
	o->fd = fd;
	o->dev = dev;
	o->ino = ino;
	snprintf(o->path, sizeof(o->path), "%s", path);
	build_id_read(elf, o);
	elf_end(elf);
	o->next = objects;
	objects = o;
	return o;
}

int up_build_id_parse(const char *text, __u8 *id, __u32 *len)
{
	size_t n = strlen(text);

	if (!n || n % 2 || n > 2 * UP_ID_MAX || strspn(text, "0123456789abcdefABCDEF") != n)
		return -1;
	for (size_t i = 0; i < n / 2; i++)
		if (sscanf(text + 2 * i, "%2hhx", &id[i]) != 1)
			return -1;
	*len = n / 2;
	return 0;
}

bool up_build_id_is(const struct up_object *o, const __u8 *id, __u32 len)
{
	return len && o->build_id_len == len && !memcmp(o->build_id, id, len);
}

/* --- functions --- */

struct found {
	__u64 addr, size;
	unsigned int n; /* functions of that name, at different addresses */
	bool ifunc, data;
};

static void search(Elf *elf, GElf_Word type, const char *name, struct found *f)
{
	size_t len = strlen(name);
	Elf_Scn *scn = NULL;
	GElf_Shdr sh;

	while ((scn = elf_nextscn(elf, scn))) {
		Elf_Data *data;
		GElf_Sym sym;

		if (!gelf_getshdr(scn, &sh) || sh.sh_type != type || !sh.sh_entsize)
			continue;
		data = elf_getdata(scn, NULL);
		for (int i = 0; data && i < (int)(sh.sh_size / sh.sh_entsize); i++) {
			const char *s;

			if (!gelf_getsym(data, i, &sym) || sym.st_shndx == SHN_UNDEF)
				continue;
			s = elf_strptr(elf, sh.sh_link, sym.st_name);
			/* with a version or without */
			if (!s || strncmp(s, name, len) || (s[len] && s[len] != '@'))
				continue;
			if (GELF_ST_TYPE(sym.st_info) == STT_GNU_IFUNC) {
				f->ifunc = true;
			} else if (GELF_ST_TYPE(sym.st_info) != STT_FUNC &&
				   GELF_ST_TYPE(sym.st_info) != STT_NOTYPE) {
				f->data = true;
			} else if (!f->n || f->addr != sym.st_value) {
				f->n++;
				f->addr = sym.st_value;
				f->size = sym.st_size;
			}
		}
	}
}

static bool searched(Elf *elf, const char *name, struct found *f)
{
	search(elf, SHT_SYMTAB, name, f);
	if (!f->n)
		search(elf, SHT_DYNSYM, name, f);
	return f->n;
}

/* By build-id, as debuggers find it. */
static bool search_debug(const struct up_object *o, const char *name, struct found *f)
{
	char path[sizeof(DEBUG_ROOT) + sizeof(o->build_id_text) + 16];
	bool found = false;
	Elf *elf;
	int fd;

	if (o->build_id_len < 2)
		return false;
	snprintf(path, sizeof(path), DEBUG_ROOT "/%.2s/%s.debug", o->build_id_text,
		 o->build_id_text + 2);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	elf = elf_of(fd);
	if (elf)
		found = searched(elf, name, f);
	elf_end(elf);
	close(fd);
	return found;
}

/* The executable segment that an address, or an offset in the file, is in. */
static bool segment(Elf *elf, bool by_addr, __u64 at, GElf_Phdr *ph)
{
	size_t n = 0;

	elf_getphdrnum(elf, &n);
	for (size_t i = 0; i < n; i++) {
		__u64 start;

		if (!gelf_getphdr(elf, i, ph) || ph->p_type != PT_LOAD || !(ph->p_flags & PF_X))
			continue;
		start = by_addr ? ph->p_vaddr : ph->p_offset;
		if (at >= start && at - start < ph->p_filesz)
			return true;
	}
	return false;
}

/* A `ret` near the function, which may as well be in the middle of an instruction. */
static int gadget_find(const struct up_object *o, const GElf_Phdr *ph, struct up_site *site,
		       char *why)
{
	size_t len = MIN(ph->p_filesz, TEXT_MAX), at = site->offset - ph->p_offset;
	__u8 *text = malloc(len);
	ssize_t got = text ? pread(o->fd, text, len, ph->p_offset) : -1;
	size_t best = 0;

	for (ssize_t i = 0; i < got; i++) {
		size_t far = (size_t)i > at ? i - at : at - i;

		if (text[i] == 0xc3 && ((size_t)i < at || (size_t)i >= at + ENTRY) &&
		    (!best || far < (best > at ? best - at : at - best)))
			best = i;
	}
	free(text);
	if (!best)
		return up_fail(why, "cannot find a `ret` in %s", o->path);
	site->gadget = (__s64)best - (__s64)at;
	return 0;
}

static int by_symbol(const struct up_object *o, Elf *elf, const char *function,
		     struct up_site *site, __u64 *addr, char *why)
{
	char name[UP_NAME], *plus;
	struct found f = {};
	__u64 more = 0;

	if (snprintf(name, sizeof(name), "%s", function) >= (int)sizeof(name))
		return up_fail(why, "the name of the function is too long");
	plus = strrchr(name, '+');
	if (plus && plus != name) {
		char *end;

		errno = 0;
		more = strtoull(plus + 1, &end, 0);
		if (errno || *end || end == plus + 1)
			return up_fail(why, "%s: not a number behind +", function);
		*plus = 0;
	}
	if (!searched(elf, name, &f)) {
		site->debug = search_debug(o, name, &f);
		if (!site->debug && f.ifunc)
			return up_fail(why, "%s is chosen at run time (IFUNC): name the one that "
				       "runs", name);
		if (!site->debug && f.data)
			return up_fail(why, "%s is no function", name);
		if (!site->debug)
			return up_fail(why, "%s has no symbol %s%s; 0xOFFSET in the file does "
				       "without", o->path, name,
				       o->build_id_len ? ", nor is there a debug file of it" : "");
	}
	if (f.n > 1)
		return up_fail(why, "%s has %u functions %s: name the one by its 0xOFFSET",
			       o->path, f.n, name);
	if (f.size && more >= f.size)
		return up_fail(why, "%s has %llu bytes, so +%#llx is outside", name, f.size, more);
	*addr = f.addr + more;
	site->size = f.size ? f.size - more : 0;
	return 0;
}

int up_site_find(const struct up_object *o, const char *function, struct up_site *site, char *why)
{
	bool by_offset = !strncmp(function, "0x", 2);
	Elf *elf = elf_of(o->fd);
	GElf_Phdr ph;
	__u64 at = 0;
	int err = 0;
	char *end;

	memset(site, 0, sizeof(*site));
	snprintf(site->function, sizeof(site->function), "%s", function);
	if (!elf)
		return up_fail(why, "%s: %s", o->path, elf_errmsg(-1));
	if (by_offset) {
		errno = 0;
		at = strtoull(function, &end, 16);
		if (errno || *end || !function[2])
			err = up_fail(why, "%s: not a number", function);
	} else {
		err = by_symbol(o, elf, function, site, &at, why);
	}
	if (!err && !segment(elf, !by_offset, at, &ph))
		err = up_fail(why, "%s is not in code of %s", function, o->path);
	if (!err) {
		site->offset = by_offset ? at : at - ph.p_vaddr + ph.p_offset;
		if (pread(o->fd, site->bytes, sizeof(site->bytes), site->offset) <= 0)
			err = up_fail(why, "cannot read %s: %s", o->path, strerror(errno));
	}
	if (!err)
		err = gadget_find(o, &ph, site, why);
	elf_end(elf);
	return err;
}
