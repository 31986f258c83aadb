/**
 * Locked documents of Office from 2007 on ([MS-OFFCRYPTO] 2.3.4): opened by guesses, as who sends
 * one together with its password locks out only the scanner. Standard encryption is one cipher
 * with 50,000 rounds; agile says in XML which ciphers, and how many rounds.
 */
import { createDecipheriv } from 'node:crypto'

/** A document to which a password is wanted. */
export type OfficeLock = {
  /** Rounds of hashing that a guess takes. */
  readonly rounds: number
  /** What lies behind the lock; null: `password` is another. */
  open(password: string): Buffer | null
}

/** Its SHA-512 takes 70 ms for 100,000 rounds, as Office writes; more than ten times that is no document. */
const ROUNDS_MAX = 1_000_000
const STANDARD_ROUNDS = 50_000
const INFO_BYTES_MAX = 64 * 1024
const SEGMENT_BYTES = 4_096

type HashName = 'sha1' | 'sha256' | 'sha384' | 'sha512'

const HASHES = { sha1: Bun.SHA1, sha256: Bun.SHA256, sha384: Bun.SHA384, sha512: Bun.SHA512 }

/** Null: of a kind that nobody opens here. `info`: EncryptionInfo; `packed`: EncryptedPackage. */
export function officeLockOf(info: Buffer, packed: Buffer): OfficeLock | null {
  if (info.length < 8 || packed.length < 8 || info.length > INFO_BYTES_MAX) return null
  const version = info.readUInt32LE(0)
  // Major and minor: 4.4 is agile; 2.2, 3.2 and 4.2 are standard.
  if (version === 0x0004_0004) return agileLock(info.toString('utf8', 8), packed)
  return [0x0002_0002, 0x0002_0003, 0x0002_0004].includes(version)
    ? standardLock(info, packed)
    : null
}

/** Section 2.3.4.7: the key; 2.3.4.9: whether it is the right one. */
function standardLock(info: Buffer, packed: Buffer): OfficeLock | null {
  if (info.length < 12) return null
  const verifierAt = 12 + info.readUInt32LE(8)
  if (info.length < verifierAt + 72 || info.length < 32) return null
  const keyBytes = info.readUInt32LE(28) / 8
  if (![16, 24, 32].includes(keyBytes)) return null
  const salt = info.subarray(verifierAt + 4, verifierAt + 20)
  const verifier = info.subarray(verifierAt + 20, verifierAt + 36)
  const verifierHash = info.subarray(verifierAt + 40, verifierAt + 72)
  return {
    rounds: STANDARD_ROUNDS,
    open: (password) => {
      const last = hash('sha1', spun('sha1', salt, password, STANDARD_ROUNDS), Buffer.alloc(4))
      const key = Buffer.concat([padded(last, 0x36), padded(last, 0x5c)]).subarray(0, keyBytes)
      const plain = (content: Buffer): Buffer => decrypt('ecb', key, Buffer.of(), content)
      if (!hash('sha1', plain(verifier)).equals(plain(verifierHash).subarray(0, 20))) return null
      return sized(packed, plain(packed.subarray(8)))
    },
  }
}

/** Hash of a block of 64 equal bytes with `sum` over its first ones. */
function padded(sum: Buffer, filling: number): Buffer {
  const block = Buffer.alloc(64, filling)
  for (const [index, byte] of sum.entries()) block[index] = byte ^ filling
  return hash('sha1', block)
}

const INPUT = Buffer.from('fea7d2763b4b9e79', 'hex')
const VALUE = Buffer.from('d7aa0f6d3061344e', 'hex')
const KEY = Buffer.from('146e0be7abacd0d6', 'hex')

type Cipher = {
  readonly hash: HashName
  readonly salt: Buffer
  readonly keyBytes: number
  readonly blockBytes: number
}

/** Section 2.3.4.10 to 2.3.4.15. */
function agileLock(xml: string, packed: Buffer): OfficeLock | null {
  const data = elementOf(xml, 'keyData')
  const own = elementOf(xml, 'encryptedKey')
  const body = data && cipherOf(data)
  const key = own && cipherOf(own)
  const rounds = Number(own?.('spinCount') ?? Number.NaN)
  if (own === null || !body || !key || !(rounds >= 0 && rounds <= ROUNDS_MAX)) return null
  const field = (name: string): Buffer => Buffer.from(own(name) ?? '', 'base64')
  return {
    rounds,
    open: (password) => {
      const last = spun(key.hash, key.salt, password, rounds)
      const plain = (block: Buffer, content: Buffer): Buffer =>
        decrypt(
          'cbc',
          fitted(hash(key.hash, last, block), key.keyBytes),
          fitted(key.salt, key.blockBytes),
          content,
        )
      const input = plain(INPUT, field('encryptedVerifierHashInput')).subarray(0, key.salt.length)
      const value = hash(key.hash, input)
      if (
        !value.equals(plain(VALUE, field('encryptedVerifierHashValue')).subarray(0, value.length))
      )
        return null
      const secret = plain(KEY, field('encryptedKeyValue')).subarray(0, body.keyBytes)
      if (secret.length !== body.keyBytes) return null
      return sized(packed, segments(packed.subarray(8), body, secret))
    },
  }
}

/** Each 4,096 bytes by themselves, with a start that is made of their number. */
function segments(packed: Buffer, { hash: name, salt, blockBytes }: Cipher, key: Buffer): Buffer {
  const pieces: Buffer[] = []
  for (let at = 0; at < packed.length; at += SEGMENT_BYTES) {
    const start = fitted(hash(name, salt, word(at / SEGMENT_BYTES)), blockBytes)
    pieces.push(decrypt('cbc', key, start, packed.subarray(at, at + SEGMENT_BYTES)))
  }
  return Buffer.concat(pieces)
}

type Attributes = (name: string) => string | undefined

/** The attributes of the first element of this name, whatever stands before its colon. */
function elementOf(xml: string, name: string): Attributes | null {
  const tag = new RegExp(`<(?:\\w{1,20}:)?${name}\\s([^>]{1,4000})>`).exec(xml)?.[1]
  if (tag === undefined) return null
  return (attribute) => new RegExp(`\\b${attribute}\\s*=\\s*["']([^"']*)["']`).exec(tag)?.[1]
}

function cipherOf(attribute: Attributes): Cipher | null {
  const name = attribute('hashAlgorithm')?.toLowerCase().replace('-', '') ?? ''
  const salt = Buffer.from(attribute('saltValue') ?? '', 'base64')
  const keyBytes = Number(attribute('keyBits')) / 8
  const blockBytes = Number(attribute('blockSize'))
  const known =
    attribute('cipherAlgorithm') === 'AES' && attribute('cipherChaining') === 'ChainingModeCBC'
  if (!known || !Object.hasOwn(HASHES, name) || salt.length === 0) return null
  if (![16, 24, 32].includes(keyBytes) || blockBytes !== 16) return null
  return { hash: name as HashName, salt, keyBytes, blockBytes }
}

/** The hash of salt and password, hashed again with the number of each round before it. */
function spun(name: HashName, salt: Buffer, password: string, rounds: number): Buffer {
  const first = hash(name, salt, Buffer.from(password, 'utf16le'))
  const block = Buffer.concat([Buffer.alloc(4), first])
  const rest = block.subarray(4)
  for (let round = 0; round < rounds; round += 1) {
    block.writeUInt32LE(round, 0)
    HASHES[name].hash(block, rest)
  }
  return Buffer.from(rest)
}

function hash(name: HashName, ...parts: readonly Buffer[]): Buffer {
  const out = Buffer.alloc(HASHES[name].byteLength)
  HASHES[name].hash(Buffer.concat(parts), out)
  return out
}

/** A number as these formats write it. */
export function word(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

function fitted(bytes: Buffer, size: number): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(size, 0x36)]).subarray(0, size)
}

/** Whole blocks; what is left over is no ciphertext. @throws never: sizes of keys are checked before */
function decrypt(mode: 'cbc' | 'ecb', key: Buffer, start: Buffer, content: Buffer): Buffer {
  const cipher = createDecipheriv(
    `aes-${key.length * 8}-${mode}`,
    key,
    mode === 'ecb' ? null : start,
  )
  cipher.setAutoPadding(false)
  const whole = content.subarray(0, content.length - (content.length % 16))
  return Buffer.concat([cipher.update(whole), cipher.final()])
}

/** The package says how long it is before its last block was filled. */
function sized(packed: Buffer, plain: Buffer): Buffer {
  return plain.subarray(0, Math.min(plain.length, Number(packed.readBigUInt64LE(0))))
}
