/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest kernel's image: found, checked, placed into the pinned kernel region. The file is ours,
 * but may be another version's or broken, so each number in it is checked before it is used.
 * Main thread, before the guest runs.
 */
#include "vmm/machine.h"

#include "support.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_END    (FV_KERNEL_BASE + FV_IMAGE_MAX)
#define FIXUPS_MAX   4096u
#define PAGE_UP(gpa) (((gpa) + FV_PAGE_SIZE - 1) & ~(gpa_t)(FV_PAGE_SIZE - 1))

struct file {
    const uint8_t *bytes;
    size_t length;
};

static int file_map(const char *path, struct file *file)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = fstat(fd, &st) < 0 ? -errno : 0;
    if (!error && (st.st_size < (off_t)sizeof(Elf64_Ehdr) || st.st_size > FV_IMAGE_MAX))
        error = -ENOEXEC;
    if (!error) {
        file->length = (size_t)st.st_size;
        void *at = mmap(NULL, file->length, PROT_READ, MAP_PRIVATE, fd, 0);
        error = at == MAP_FAILED ? -errno : 0;
        file->bytes = at;
    }
    close(fd);
    return error;
}

static const Elf64_Phdr *headers_check(const struct file *file, size_t *count)
{
    const Elf64_Ehdr *elf = (const void *)file->bytes;
    if (!elf || memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0 ||
        elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_machine != EM_X86_64 ||
        elf->e_type != ET_EXEC || elf->e_phentsize != sizeof(Elf64_Phdr) || elf->e_phoff % 8 ||
        elf->e_phoff > file->length ||
        (file->length - elf->e_phoff) / sizeof(Elf64_Phdr) < elf->e_phnum)
        return NULL;
    *count = elf->e_phnum;
    return (const void *)(file->bytes + elf->e_phoff);
}

static unsigned segment_access(const Elf64_Phdr *header)
{
    return EPT_READ | (header->p_flags & PF_W ? EPT_WRITE : 0) |
           (header->p_flags & PF_X ? EPT_EXEC : 0);
}

static int segment_place(struct vm *vm, const struct file *file, const Elf64_Phdr *header)
{
    if (header->p_vaddr < FV_KERNEL_BASE || header->p_vaddr > IMAGE_END ||
        header->p_memsz > IMAGE_END - header->p_vaddr || header->p_filesz > header->p_memsz ||
        header->p_offset > file->length || header->p_filesz > file->length - header->p_offset)
        return -ENOEXEC;
    memcpy(ept_hva(vm->ept, header->p_vaddr), file->bytes + header->p_offset, header->p_filesz);
    return ept_map_kernel(vm->ept, header->p_vaddr, header->p_memsz, segment_access(header), true);
}

/* Segments as the file has them; what is left of the image's room is the guest kernel's heap. */
static int segments_place(struct vm *vm, const struct file *file)
{
    size_t count = 0;
    const Elf64_Phdr *headers = headers_check(file, &count);
    gpa_t end = FV_KERNEL_BASE;
    if (!headers)
        return -ENOEXEC;
    for (size_t i = 0; i < count; i++) {
        if (headers[i].p_type != PT_LOAD || !headers[i].p_memsz)
            continue;
        int error = segment_place(vm, file, &headers[i]);
        if (error)
            return error;
        if (headers[i].p_vaddr + headers[i].p_memsz > end)
            end = headers[i].p_vaddr + headers[i].p_memsz;
    }
    end = PAGE_UP(end);
    return ept_map_kernel(vm->ept, end, IMAGE_END - end, EPT_READ | EPT_WRITE, true);
}

static bool inside(gpa_t gpa)
{
    return gpa >= FV_KERNEL_BASE && gpa < IMAGE_END;
}

/* NULL, or what is wrong with the image's own description of itself. */
static const char *description_check(const struct fv_image *image)
{
    if (image->magic != FV_IMAGE_MAGIC || image->bytes < sizeof(*image))
        return "not a farvisor guest image";
    if (image->abi_version != FV_ABI_VERSION)
        return "built for another version of farvisor";
    if (!inside(image->entry) || !inside(image->thread_entry) || !inside(image->syscall_entry) ||
        !inside(image->upcall_entry) || !inside(image->vectors) || !inside(image->text_begin) ||
        !inside(image->text_end) || !inside(image->return_begin) || !inside(image->return_end))
        return "entry points outside the image";
    if (image->fixup_count > FIXUPS_MAX ||
        (image->fixup_count &&
         (!inside(image->fixups) ||
          image->fixup_count > (IMAGE_END - image->fixups) / sizeof(struct fv_fixup))))
        return "fixups outside the image";
    return NULL;
}

int image_load(struct vm *vm)
{
    char path[PATH_MAX] = INSTALL_GUEST_NAME;
    struct file file = {0};
    int error = install_find(INSTALL_GUEST_VARIABLE, INSTALL_GUEST_NAME, path, sizeof(path));
    if (!error)
        error = file_map(path, &file);
    if (!error)
        error = segments_place(vm, &file);
    if (file.bytes)
        munmap((void *)file.bytes, file.length);
    if (error) {
        message_error("%s: guest image: %s (built by 'make', installed by 'make install')", path,
                      strerror(-error));
        return error;
    }
    memcpy(&vm->image, ept_hva(vm->ept, FV_KERNEL_BASE), sizeof(vm->image));
    const char *wrong = description_check(&vm->image);
    if (wrong) {
        message_error("%s: guest image: %s", path, wrong);
        return -ENOEXEC;
    }
    return 0;
}
