/**
 * The lock of a PDF (ISO 32000-2 section 7.6). Many are locked against printing only and open
 * without a password: those are looked into like any other.
 */
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto'
import { rc4 } from './rc4.ts'

export type PdfLock = {
  /** Without a password. */
  readonly opens: boolean
  /** The stream of the object `12 0`; null when it cannot be opened. */
  open(packed: Buffer, number: string): Buffer | null
}

const PAD = Buffer.from('28bf4e5e4e758a4164004e56fffa01082e2e00b6d0683e802f0ca9fe6453697a', 'hex')

/** Null: there is none. `text`: what stands between the streams. */
export function lockOf(text: string): PdfLock | null {
  if (!/\/Encrypt\b/.test(text)) return null
  const at = text.search(/\/Filter\s*\/Standard\b/)
  if (at === -1) return SHUT
  const around = text.slice(Math.max(0, at - 3_000), at + 3_000)
  const number = (name: string, otherwise: number): number => {
    const match = new RegExp(`/${name}\\s+(-?\\d{1,10})`).exec(around)
    return match === null ? otherwise : Number(match[1])
  }
  const revision = number('R', 2)
  const owner = stringOf(around, 'O')
  const user = stringOf(around, 'U')
  const aes = /\/CFM\s*\/AESV[23]\b/.test(around)
  if (revision >= 5) {
    const key = newKey(user, stringOf(around, 'UE'), revision)
    return key === null ? SHUT : { opens: true, open: (packed) => unlockAes(packed, key) }
  }
  const length = Math.min(16, Math.max(5, revision === 2 ? 5 : number('Length', 40) / 8 || 5))
  const size = aes || /\/CFM\s*\/V2\b/.test(around) ? 16 : length
  const id = stringAfter(text, /\/ID\s*\[\s*/)
  const hidden = /\/EncryptMetadata\s+false\b/.test(around)
  const key = oldKey(owner, number('P', 0), id, revision, size, hidden)
  if (!isUser(key, user, id, revision)) return SHUT
  return {
    opens: true,
    open: (packed, object) => {
      const [first = 0, second = 0] = object.split(' ').map(Number)
      const salt = Buffer.from(
        [first, first >> 8, first >> 16, second, second >> 8].map((byte) => byte & 255),
      )
      const own = md5(key, salt, aes ? Buffer.from('sAlT') : Buffer.of()).subarray(
        0,
        Math.min(16, size + 5),
      )
      return aes ? unlockAes(packed, own) : rc4(own, packed)
    },
  }
}

const SHUT: PdfLock = { opens: false, open: () => null }

function md5(...parts: readonly Buffer[]): Buffer {
  const hash = createHash('md5')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

/** Algorithm 2, with no password. */
function oldKey(
  owner: Buffer,
  rights: number,
  id: Buffer,
  revision: number,
  size: number,
  hidden: boolean,
): Buffer {
  const word = Buffer.alloc(4)
  word.writeInt32LE(rights | 0)
  let key = md5(
    PAD,
    owner.subarray(0, 32),
    word,
    id,
    revision >= 4 && hidden ? Buffer.alloc(4, 255) : Buffer.of(),
  )
  if (revision >= 3) for (let round = 0; round < 50; round += 1) key = md5(key.subarray(0, size))
  return key.subarray(0, size)
}

/** Algorithms 4 and 5. */
function isUser(key: Buffer, user: Buffer, id: Buffer, revision: number): boolean {
  if (revision === 2) return rc4(key, PAD).equals(user.subarray(0, 32))
  let sum: Buffer = rc4(key, md5(PAD, id))
  for (let round = 1; round < 20; round += 1)
    sum = rc4(Buffer.from(key.map((byte) => byte ^ round)), sum)
  return user.length >= 16 && sum.equals(user.subarray(0, 16))
}

/** Algorithm 2.A, with no password: the key itself is locked by the hash of nothing. */
function newKey(user: Buffer, locked: Buffer, revision: number): Buffer | null {
  if (user.length < 48 || locked.length < 32) return null
  const hash = (salt: Buffer): Buffer =>
    revision === 5 ? createHash('sha256').update(salt).digest() : hardHash(salt)
  if (!hash(user.subarray(32, 40)).equals(user.subarray(0, 32))) return null
  const cipher = createDecipheriv('aes-256-cbc', hash(user.subarray(40, 48)), Buffer.alloc(16))
  cipher.setAutoPadding(false)
  return Buffer.concat([cipher.update(locked.subarray(0, 32)), cipher.final()])
}

/** Algorithm 2.B, with no password. */
function hardHash(salt: Buffer): Buffer {
  let key: Buffer = createHash('sha256').update(salt).digest()
  for (let round = 0; round < 10_000; round += 1) {
    const block = Buffer.concat(Array.from({ length: 64 }, () => key))
    const cipher = createCipheriv('aes-128-cbc', key.subarray(0, 16), key.subarray(16, 32))
    cipher.setAutoPadding(false)
    const sealed = Buffer.concat([cipher.update(block), cipher.final()])
    const rest = sealed.subarray(0, 16).reduce((sum, byte) => sum + byte, 0) % 3
    key = createHash(['sha256', 'sha384', 'sha512'][rest] ?? 'sha256')
      .update(sealed)
      .digest()
    if (round >= 63 && (sealed.at(-1) ?? 0) <= round - 32) break
  }
  return key.subarray(0, 32)
}

function unlockAes(packed: Buffer, key: Buffer): Buffer | null {
  if (packed.length < 32) return Buffer.of()
  const body = packed.subarray(16, packed.length - (packed.length % 16))
  try {
    const cipher = createDecipheriv(
      key.length === 32 ? 'aes-256-cbc' : 'aes-128-cbc',
      key,
      packed.subarray(0, 16),
    )
    cipher.setAutoPadding(false)
    return Buffer.concat([cipher.update(body), cipher.final()])
  } catch {
    return null
  }
}

function stringOf(text: string, name: string): Buffer {
  return stringAfter(text, new RegExp(`/${name}\\s*(?=[(<])`))
}

/** A string of the file, in brackets or in hex. */
function stringAfter(text: string, before: RegExp): Buffer {
  const match = before.exec(text)
  if (match === null) return Buffer.of()
  const at = match.index + match[0].length
  if (text[at] === '<') {
    const end = text.indexOf('>', at)
    return Buffer.from(text.slice(at + 1, end).replace(/\s+/g, ''), 'hex')
  }
  const out: number[] = []
  let depth = 0
  for (let place = at + 1; place < text.length && out.length < 1_000; place += 1) {
    let code = text.charCodeAt(place)
    if (code === 41 && depth === 0) break
    if (code === 40) depth += 1
    if (code === 41) depth -= 1
    if (code === 92) {
      place += 1
      const octal = /^[0-7]{1,3}/.exec(text.slice(place, place + 3))?.[0]
      if (octal !== undefined) {
        code = Number.parseInt(octal, 8) & 255
        place += octal.length - 1
      } else {
        const letter = text[place] ?? ''
        if (letter === '\n') continue
        code = { n: 10, r: 13, t: 9, b: 8, f: 12 }[letter] ?? text.charCodeAt(place)
      }
    }
    out.push(code)
  }
  return Buffer.from(out)
}
