/**
 * Locked workbooks of Excel before 2007 ([MS-OFFCRYPTO] 2.3.5 and 2.3.6, [MS-XLS] 2.2.10): RC4 over
 * the content of records, their heads left open. Only their sheets are locked, macros never are.
 */
import { createHash } from 'node:crypto'
import { type OfficeLock, word } from './office-lock.ts'
import { rc4 } from './rc4.ts'

const FILE_LOCK = 0x2f
const SHEET = 0x85
/** Records that are never locked: BOF, FILEPASS, UsrExcl, FileLock, InterfaceHdr, RRDInfo, RRDHead. */
const OPEN: ReadonlySet<number> = new Set([0x809, FILE_LOCK, 0x194, 0x195, 0xe1, 0x196, 0x138])
/** Where a sheet begins stays readable in the record that names it. */
const SHEET_OPEN_BYTES = 4
const BLOCK_BYTES = 1_024
/** Where FILEPASS may stand: behind BOF, and a record for writers. */
const HEAD_BYTES = 4_096

type Scheme = {
  readonly verifier: Buffer
  /** Locked behind the verifier, in one stream. */
  readonly verifierHash: Buffer
  hash(content: Buffer): Buffer
  /** The key of each 1,024 bytes. */
  keys(password: string): (block: number) => Buffer
}

/** Its sheets in the clear behind the lock. Null: it is not locked, or in a way that nobody opens here. */
export function sheetLockOf(workbook: Buffer): OfficeLock | null {
  const data = lockRecord(workbook)
  const scheme =
    data === null || data.length < 6 || data.readUInt16LE(0) !== 1 ? null : schemeOf(data)
  if (scheme === null) return null
  return {
    // Guesses cost next to nothing.
    rounds: 100,
    open: (password) => {
      const keyOf = scheme.keys(password)
      const { verifier, verifierHash } = scheme
      const plain = rc4(keyOf(0), Buffer.concat([verifier, verifierHash]))
      const hash = scheme.hash(plain.subarray(0, verifier.length))
      if (!hash.equals(plain.subarray(verifier.length))) return null
      return unlocked(workbook, keyOf)
    },
  }
}

function lockRecord(workbook: Buffer): Buffer | null {
  for (let at = 0; at + 4 <= Math.min(workbook.length, HEAD_BYTES); ) {
    const end = at + 4 + workbook.readUInt16LE(at + 2)
    if (workbook.readUInt16LE(at) === FILE_LOCK) return workbook.subarray(at + 4, end)
    at = end
  }
  return null
}

function schemeOf(data: Buffer): Scheme | null {
  const [major, minor] = [data.readUInt16LE(2), data.readUInt16LE(4)]
  if (major === 1 && minor === 1) return oldScheme(data)
  return major >= 2 && major <= 4 && minor === 2 ? laterScheme(data) : null
}

/** Section 2.3.6.2: 40 bits of MD5. */
function oldScheme(data: Buffer): Scheme | null {
  if (data.length < 54) return null
  const salt = data.subarray(6, 22)
  return {
    verifier: data.subarray(22, 38),
    verifierHash: data.subarray(38, 54),
    hash: (content) => sum('md5', content),
    keys: (password) => {
      const first = sum('md5', Buffer.from(password, 'utf16le')).subarray(0, 5)
      const base = sum('md5', ...Array<Buffer>(16).fill(Buffer.concat([first, salt]))).subarray(
        0,
        5,
      )
      return (block) => sum('md5', base, word(block))
    },
  }
}

/** Section 2.3.5.2: 40 to 128 bits of SHA-1. */
function laterScheme(data: Buffer): Scheme | null {
  if (data.length < 38) return null
  const at = 14 + data.readUInt32LE(10)
  const keyBytes = (data.readUInt32LE(30) || 40) / 8
  if (!Number.isInteger(keyBytes) || keyBytes < 5 || keyBytes > 16) return null
  const salt = data.subarray(at + 4, at + 20)
  return {
    verifier: data.subarray(at + 20, at + 36),
    verifierHash: data.subarray(at + 40, at + 60),
    hash: (content) => sum('sha1', content),
    keys: (password) => {
      const base = sum('sha1', salt, Buffer.from(password, 'utf16le'))
      // A key of 40 bits is one of 128, the rest of it zeros.
      return (block) => {
        const key = sum('sha1', base, word(block)).subarray(0, keyBytes)
        return keyBytes === 5 ? Buffer.concat([key, Buffer.alloc(11)]) : key
      }
    },
  }
}

/** Heads of records count in the stream of the cipher, and are not locked by it. */
function unlocked(workbook: Buffer, keyOf: (block: number) => Buffer): Buffer {
  const blocks: Buffer[] = []
  for (let at = 0; at < workbook.length; at += BLOCK_BYTES)
    blocks.push(rc4(keyOf(at / BLOCK_BYTES), workbook.subarray(at, at + BLOCK_BYTES)))
  const plain = Buffer.concat(blocks)
  for (let at = 0; at + 4 <= workbook.length; ) {
    const id = workbook.readUInt16LE(at)
    const end = at + 4 + workbook.readUInt16LE(at + 2)
    const open = OPEN.has(id) ? end : at + 4 + (id === SHEET ? SHEET_OPEN_BYTES : 0)
    workbook.copy(plain, at, at, Math.min(open, end))
    at = end
  }
  return plain
}

function sum(name: 'md5' | 'sha1', ...parts: readonly Buffer[]): Buffer {
  const hash = createHash(name)
  for (const part of parts) hash.update(part)
  return hash.digest()
}
