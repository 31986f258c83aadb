/** Archives of every kind around one file, made by the programs that make them. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { zipSync } from 'fflate'

/** Packs one file into an archive of its kind. */
export type Pack = (name: string, content: Uint8Array) => Buffer

/** Runs `command` in a directory that holds the file, and reads `out`. */
export function by(out: string, ...command: readonly string[]): Pack {
  return (name, content) => {
    const dir = mkdtempSync(join(tmpdir(), 'postern-archive-'))
    try {
      mkdirSync(join(dir, 'in'))
      writeFileSync(join(dir, 'in', name), content)
      const words = command.map((word) => word.replaceAll('NAME', name))
      const run = Bun.spawnSync(words, {
        cwd: join(dir, 'in'),
        stdin: 'ignore',
        stdout: 'pipe',
        stderr: 'pipe',
      })
      if (run.exitCode !== 0) throw new Error(`${words.join(' ')}: ${run.stderr}${run.stdout}`)
      return readFileSync(join(dir, 'in', out.replaceAll('NAME', name)))
    } finally {
      rmSync(dir, { recursive: true })
    }
  }
}

const shell = (out: string, script: string): Pack => by(out, 'sh', '-ec', script, 'sh', 'NAME')

function crc(bytes: Uint8Array): Buffer {
  const out = Buffer.alloc(4)
  out.writeUInt32LE(Bun.hash.crc32(bytes))
  return out
}

/** RAR 5.0 archive format, "General archive block format": numbers of 7 bits, the lowest first. */
function vint(value: number): Buffer {
  const out: number[] = []
  let left = value
  do {
    const low = left & 127
    left = Math.floor(left / 128)
    out.push(left > 0 ? low | 128 : low)
  } while (left > 0)
  return Buffer.from(out)
}

function block5(...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const sized = Buffer.concat([vint(body.length), body])
  return Buffer.concat([crc(sized), sized])
}

/** A stored file; nobody may ship a program that packs rar. */
const rar5: Pack = (name, content) => {
  const label = Buffer.from(name)
  const file = [2, 2, content.length, 4, content.length, 0o100_644].map(vint)
  return Buffer.concat([
    Buffer.from('Rar!\x1a\x07\x01\x00', 'latin1'),
    block5(vint(1), vint(0), vint(0)),
    block5(...file, crc(content), vint(0), vint(1), vint(label.length), label),
    content,
    block5(vint(5), vint(0), vint(0)),
  ])
}

function block4(
  type: number,
  flags: number,
  rest: Uint8Array,
  more: Uint8Array = Buffer.of(),
): Buffer {
  const head = Buffer.alloc(5)
  head[0] = type
  head.writeUInt16LE(flags, 1)
  head.writeUInt16LE(7 + rest.length, 3)
  const whole = Buffer.concat([head, rest])
  return Buffer.concat([crc(whole).subarray(0, 2), whole, more])
}

const rar4: Pack = (name, content) => {
  const label = Buffer.from(name)
  const head = Buffer.alloc(25)
  head.writeUInt32LE(content.length, 0)
  head.writeUInt32LE(content.length, 4)
  head[8] = 3
  crc(content).copy(head, 9)
  head.writeUInt32LE(0x5a21_a000, 13)
  head[17] = 20
  head[18] = 0x30
  head.writeUInt16LE(label.length, 19)
  head.writeUInt32LE(0o100_644, 21)
  return Buffer.concat([
    Buffer.from('Rar!\x1a\x07\x00', 'latin1'),
    block4(0x73, 0, Buffer.alloc(6)),
    block4(0x74, 0x8000, Buffer.concat([head, label]), content),
    block4(0x7b, 0x4000, Buffer.of()),
  ])
}

/** LHA level 0 header, stored (-lh0-). */
const lzh: Pack = (name, content) => {
  const label = Buffer.from(name)
  const head = Buffer.alloc(22)
  head.write('-lh0-', 2, 'latin1')
  head.writeUInt32LE(content.length, 7)
  head.writeUInt32LE(content.length, 11)
  head[19] = 0x20
  head[21] = label.length
  const whole = Buffer.concat([head, label, crc16(content)])
  whole[0] = whole.length - 2
  whole[1] = whole.subarray(2).reduce((sum, byte) => (sum + byte) & 255, 0)
  return Buffer.concat([whole, content, Buffer.of(0)])
}

function crc16(bytes: Uint8Array): Buffer {
  let value = 0
  for (const byte of bytes) {
    value ^= byte
    for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xa001 : value >>> 1
  }
  return Buffer.of(value & 255, value >>> 8)
}

const disk = (format: string, options = ''): Pack =>
  shell(
    'disk.out',
    `size=$(( ($(stat -c %s "$1") + 300000) / 512 * 512 )); truncate -s $size d; mkfs.fat d >/dev/null; mcopy -i d "$1" ::; qemu-img convert -f raw -O ${format} ${options} d disk.out`,
  )

/** By the name of the kind: what packs it. */
export const KINDS: Readonly<Record<string, Pack>> = {
  zip: (name, content) => Buffer.from(zipSync({ [name]: content })),
  'zip of LZMA': by('out.zip', '7zz', 'a', '-tzip', '-mm=LZMA', 'out.zip', 'NAME'),
  'zip of BZip2': by('out.zip', '7zz', 'a', '-tzip', '-mm=BZip2', 'out.zip', 'NAME'),
  'zip of Deflate64': by('out.zip', '7zz', 'a', '-tzip', '-mm=Deflate64', 'out.zip', 'NAME'),
  '7z': by('out.7z', '7zz', 'a', 'out.7z', 'NAME'),
  '7z of PPMd': by('out.7z', '7zz', 'a', '-m0=PPMd', 'out.7z', 'NAME'),
  rar4,
  rar5,
  tar: by('out.tar', 'tar', 'cf', 'out.tar', 'NAME'),
  'tar.gz': by('out.tgz', 'tar', 'czf', 'out.tgz', 'NAME'),
  'tar.bz2': by('out.tar.bz2', 'tar', 'cjf', 'out.tar.bz2', 'NAME'),
  'tar.xz': by('out.tar.xz', 'tar', 'cJf', 'out.tar.xz', 'NAME'),
  'tar.zst': by('out.tar.zst', 'tar', '--zstd', '-cf', 'out.tar.zst', 'NAME'),
  'tar of 1979': by('out.tar', 'tar', '--format=v7', '-cf', 'out.tar', 'NAME'),
  gz: (_, content) => Buffer.from(Bun.gzipSync(Buffer.from(content))),
  xz: by('NAME.xz', 'xz', 'NAME'),
  bz2: by('NAME.bz2', 'bzip2', 'NAME'),
  zst: by('NAME.zst', 'zstd', '-q', 'NAME'),
  iso: by('out.iso', 'genisoimage', '-quiet', '-J', '-o', 'out.iso', 'NAME'),
  udf: by('out.iso', 'genisoimage', '-quiet', '-udf', '-o', 'out.iso', 'NAME'),
  cab: by('out.cab', 'gcab', '-c', '-z', 'out.cab', 'NAME'),
  arj: by('out.arj', 'arj', 'a', '-y', 'out.arj', 'NAME'),
  lzh,
  wim: shell('../out.wim', 'wimcapture . ../out.wim >/dev/null'),
  squashfs: by('out.sq', 'mksquashfs', 'NAME', 'out.sq', '-quiet', '-no-progress'),
  cpio: shell('out.cpio', 'echo "$1" | cpio -o -H newc > out.cpio 2>/dev/null'),
  ar: by('out.a', 'ar', 'rc', 'out.a', 'NAME'),
  fat: disk('raw'),
  vhd: disk('vpc'),
  'vhd of fixed size': disk('vpc', '-o subformat=fixed'),
  vhdx: disk('vhdx'),
  vmdk: disk('vmdk'),
  vdi: disk('vdi'),
  qcow2: disk('qcow2'),
}
