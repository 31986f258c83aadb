/** Archives of very many files of nothing: their lists are the bomb. */
import { gzipSync } from 'node:zlib'

/** A zip of `count` stored files; from 65,536 on the count of its end record wraps around. */
export function zipOfMany(count: number): Buffer {
  const locals: Buffer[] = []
  const directory: Buffer[] = []
  let at = 0
  for (let index = 0; index < count; index += 1) {
    const name = Buffer.from(index.toString(36))
    const local = Buffer.alloc(30 + name.length)
    local.write('PK\x03\x04\x14', 0, 'latin1')
    local.writeUInt16LE(name.length, 26)
    name.copy(local, 30)
    const line = Buffer.alloc(46 + name.length)
    line.write('PK\x01\x02\x14\0\x14', 0, 'latin1')
    line.writeUInt16LE(name.length, 28)
    line.writeUInt32LE(at, 42)
    name.copy(line, 46)
    locals.push(local)
    directory.push(line)
    at += local.length
  }
  const lines = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 0, 'latin1')
  end.writeUInt16LE(count & 0xffff, 8)
  end.writeUInt16LE(count & 0xffff, 10)
  end.writeUInt32LE(lines.length, 12)
  end.writeUInt32LE(at, 16)
  return Buffer.concat([...locals, lines, end])
}

/** A tar of `count` files, each behind `more` headers that only describe it. */
export function tarOfMany(count: number, more = 0): Buffer {
  const tar = Buffer.alloc(512 * count * (1 + more) + 1024)
  for (let index = 0; index < count * (1 + more); index += 1) {
    const header = tar.subarray(index * 512, index * 512 + 512)
    const type = index % (1 + more) === more ? '0' : 'x'
    header.write(`f${index}`)
    header.write('0000644\0', 100)
    header.write('00000000000\0', 124)
    header.write(`        ${type}`, 148)
    header.write('ustar\x0000', 257)
    const sum = header.reduce((all, byte) => all + byte, 0)
    header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  }
  return tar
}

/** A 7z of `count` empty files, by 7-Zip. @throws Error where there is none */
export function sevenOfMany(count: number, ...options: readonly string[]): Buffer {
  const script =
    'd=$(mktemp -d); cd $d; seq "$1" | xargs touch; shift; 7zz a -bd "$@" o.7z . >&2; cat o.7z; rm -r $d'
  const run = Bun.spawnSync(['sh', '-ec', script, 'sh', `${count}`, ...options], { stderr: 'pipe' })
  if (run.exitCode !== 0) throw new Error(`7zz: ${run.stderr}`)
  return run.stdout
}

export type Bomb = { readonly name: string; readonly make: () => Buffer }

/** The bombs by count that fit into a mail of the usual bound. */
export const BOMBS_OF_MANY: Readonly<Record<string, Bomb>> = {
  '7z of 60,000 files': { name: 'a.7z', make: () => sevenOfMany(60_000) },
  '7z of 1,000,000 files of its own making': {
    name: 'a.7z',
    make: () => sevenWithoutNames(1_000_000),
  },
  'tar.gz of 200,000 files': { name: 'a.tar.gz', make: () => gzipSync(tarOfMany(200_000)) },
  'zip of 450,000 files': { name: 'a.zip', make: () => zipOfMany(450_000) },
}

/** A 7z whose list is not packed and gives nothing but how many empty files there are: a bit each. */
export function sevenWithoutNames(count: number): Buffer {
  const number = (value: number): Buffer =>
    Buffer.of(0xe0, value & 255, (value >> 8) & 255, (value >> 16) & 255)
  const bits = Buffer.alloc(Math.ceil(count / 8), 0xff)
  const list = Buffer.concat([
    Buffer.of(0x01, 0x05),
    number(count),
    Buffer.of(0x0e),
    number(bits.length),
    bits,
    Buffer.of(0, 0),
  ])
  const start = Buffer.alloc(32)
  start.write('7z\xbc\xaf\x27\x1c\0\x04', 0, 'latin1')
  start.writeBigUInt64LE(BigInt(list.length), 20)
  start.writeUInt32LE(Bun.hash.crc32(list), 28)
  start.writeUInt32LE(Bun.hash.crc32(start.subarray(12, 32)), 8)
  return Buffer.concat([start, list])
}
