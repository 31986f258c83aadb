/**
 * Locked documents of Office: opened by the password that came with them or that Excel tries by
 * itself, within bounds. The files of test/locked were locked by officecrypto-tool 0.0.19; the
 * other ones are locked here, as [MS-OFFCRYPTO] 2.3.4 says.
 */
import { describe, expect, test } from 'bun:test'
import { createCipheriv, createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { officeLockOf } from '../src/mail/inspect/documents/office-lock.ts'
import { readOle } from '../src/mail/inspect/documents/ole.ts'
import { rc4 } from '../src/mail/inspect/documents/rc4.ts'
import { sheetLockOf } from '../src/mail/inspect/documents/sheet-lock.ts'
import { type Files, filesOf } from '../src/mail/inspect/files.ts'
import { type InspectConfig, PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { Mail } from '../src/message/mime.ts'
import { attached } from './attached.ts'
import { compound, docx, EICAR, macroSheet } from './document-samples.ts'

const PASSWORD = 'Qx7-wolke'
const WORDS = `Das Passwort lautet: ${PASSWORD}`

async function files(
  content: Uint8Array,
  words = 'See attached.',
  config = PLAIN_CONFIG,
): Promise<Files> {
  return await filesOf({ mail: new Mail(attached('a.docx', content, words)), config })
}

const said = ({ eicar, documents }: Files): readonly string[] =>
  [...eicar, ...documents].map(({ rule }) => rule)

const locked = (name: string): Buffer => readFileSync(join(import.meta.dir, 'locked', name))

function streams(content: Buffer): { info: Buffer; packed: Buffer } {
  const read = (name: string): Buffer =>
    readOle(content)
      .entries.find((entry) => entry.name === name)
      ?.read(1_000_000) ?? Buffer.of()
  return { info: read('EncryptionInfo'), packed: read('EncryptedPackage') }
}

describe('a locked document', () => {
  test.each(['agile.docx', 'standard.docx'])(
    '%s: the password in the mail opens it',
    async (name) => {
      expect(said(await files(locked(name), WORDS))).toEqual(['EICAR', 'DOCUMENT_PASSWORD_IN_MAIL'])
      const shut = await files(locked(name))
      expect(shut.documents.map(({ rule, score }) => [rule, score])).toEqual([
        ['DOCUMENT_ENCRYPTED', 8],
      ])
      expect(shut.files).toHaveLength(1)
    },
  )

  test.each(['agile-velvet.xlsx', 'standard-velvet.xlsx'])(
    '%s: the password of Excel is tried in every mail',
    async (name) => {
      expect(said(await files(locked(name)))).toEqual(['EICAR', 'DOCUMENT_DEFAULT_PASSWORD'])
    },
  )

  test.each([
    ['hold', 8],
    ['score', 3],
    ['pass', 0],
  ] as const)('that stays locked: %s', async (policy, score) => {
    const settings = { ...PLAIN_CONFIG.settings, 'content.encrypted': policy }
    const config: InspectConfig = { ...PLAIN_CONFIG, settings }
    const { documents } = await files(locked('standard.docx'), 'See attached.', config)
    expect(documents.map((finding) => finding.score)).toEqual([score])
  })
})

const HASHES = ['sha1', 'sha256', 'sha384', 'sha512'] as const
type Choice = { readonly hash: string; readonly keyBits: number; readonly rounds: number }

/** Agile encryption (2.3.4.10 to 2.3.4.15) of `plain`; `secretBytes` of its key are written down. */
function agile(
  plain: Buffer,
  password: string,
  { hash, keyBits, rounds }: Choice,
  secretBytes = keyBits / 8,
) {
  const sum = (...parts: readonly Uint8Array[]): Buffer =>
    createHash(hash).update(Buffer.concat(parts)).digest()
  const number = (value: number): Buffer => {
    const out = Buffer.alloc(4)
    out.writeUInt32LE(value)
    return out
  }
  const fit = (bytes: Buffer, size: number): Buffer =>
    Buffer.concat([bytes, Buffer.alloc(size, 0x36)]).subarray(0, size)
  const lock = (key: Buffer, start: Buffer, content: Buffer): string => {
    const cipher = createCipheriv(`aes-${keyBits}-cbc`, key, start).setAutoPadding(false)
    const whole = Buffer.concat([content, Buffer.alloc((16 - (content.length % 16)) % 16)])
    return Buffer.concat([cipher.update(whole), cipher.final()]).toString('base64')
  }
  const [salt, dataSalt, verifier, secret] = [16, 16, 16, keyBits / 8].map((size) =>
    randomBytes(size),
  ) as [Buffer, Buffer, Buffer, Buffer]
  let last = sum(salt, Buffer.from(password, 'utf16le'))
  for (let round = 0; round < rounds; round += 1) last = sum(number(round), last)
  const own = (block: string, content: Buffer): string =>
    lock(fit(sum(last, Buffer.from(block, 'hex')), keyBits / 8), fit(salt, 16), content)
  const name = hash.toUpperCase().replace('SHA', 'SHA-').replace('SHA-1', 'SHA1')
  const cipher = (of: Buffer): string =>
    `saltSize="16" blockSize="16" keyBits="${keyBits}" hashSize="${last.length}" cipherAlgorithm="AES" cipherChaining="ChainingModeCBC" hashAlgorithm="${name.replace('-', '')}" saltValue="${of.toString('base64')}"`
  const value = secretBytes === 0 ? '' : own('146e0be7abacd0d6', secret.subarray(0, secretBytes))
  const xml = `<?xml version="1.0"?><encryption xmlns="http://schemas.microsoft.com/office/2006/encryption" xmlns:p="http://schemas.microsoft.com/office/2006/keyEncryptor/password"><keyData ${cipher(dataSalt)}/><keyEncryptors><keyEncryptor uri="http://schemas.microsoft.com/office/2006/keyEncryptor/password"><p:encryptedKey spinCount="${rounds}" ${cipher(salt)} encryptedVerifierHashInput="${own('fea7d2763b4b9e79', verifier)}" encryptedVerifierHashValue="${own('d7aa0f6d3061344e', sum(verifier))}" encryptedKeyValue="${value}"/></keyEncryptor></keyEncryptors></encryption>`
  const pieces: Buffer[] = [Buffer.alloc(8)]
  pieces[0]?.writeBigUInt64LE(BigInt(plain.length))
  for (let at = 0; at < plain.length; at += 4_096)
    pieces.push(
      Buffer.from(
        lock(secret, fit(sum(dataSalt, number(at / 4_096)), 16), plain.subarray(at, at + 4_096)),
        'base64',
      ),
    )
  const info = Buffer.concat([Buffer.from('0400040040000000', 'hex'), Buffer.from(xml)])
  return { info, packed: Buffer.concat(pieces) }
}

describe('agile encryption', () => {
  const plain = docx({ 'word/embeddings/e.txt': EICAR, 'word/media/noise.bin': randomBytes(9_000) })
  for (const hash of HASHES) {
    for (const keyBits of [128, 192, 256]) {
      test(`with ${hash} and ${keyBits} bits`, () => {
        const { info, packed } = agile(plain, PASSWORD, { hash, keyBits, rounds: 1_000 })
        const lock = officeLockOf(info, packed)
        expect(lock?.rounds).toBe(1_000)
        expect(lock?.open('another')).toBeNull()
        expect(lock?.open(PASSWORD)?.equals(plain)).toBe(true)
      })
    }
  }

  const quick = { hash: 'sha512', keyBits: 256, rounds: 3 }
  const file = ({ info, packed }: ReturnType<typeof agile>): Buffer =>
    compound({ EncryptionInfo: info, EncryptedPackage: packed })

  test('what lies in it is looked at like any other file', async () => {
    expect(said(await files(file(agile(plain, PASSWORD, quick)), WORDS))).toEqual([
      'EICAR',
      'DOCUMENT_PASSWORD_IN_MAIL',
    ])
  })

  test('more rounds than any program writes are not begun', () => {
    const { info, packed } = agile(plain, PASSWORD, quick)
    const of = (rounds: number) =>
      officeLockOf(
        Buffer.from(
          info.toString('latin1').replace('spinCount="3"', `spinCount="${rounds}"`),
          'latin1',
        ),
        packed,
      )
    expect(of(1_000_000)?.rounds).toBe(1_000_000)
    for (const rounds of [1_000_001, 4_294_967_295, -1, Number.NaN]) expect(of(rounds)).toBeNull()
  })

  test('the rounds of one message are bounded: what is beyond them stays locked', async () => {
    const most = agile(plain, PASSWORD, { hash: 'sha1', keyBits: 128, rounds: 700_000 })
    expect(said(await files(file(most), WORDS))).toEqual(['DOCUMENT_ENCRYPTED'])
  }, 30_000)

  test('a key of too few bytes opens nothing', () => {
    const { info, packed } = agile(plain, PASSWORD, quick, 0)
    expect(officeLockOf(info, packed)?.open(PASSWORD)).toBeNull()
  })
})

/** `workbook` behind a lock: RC4 of 40 bits of MD5 (2.3.6), or of SHA-1 (2.3.5). */
function lockedSheets(
  workbook: Buffer,
  password: string,
  keyBits: 'old' | number,
): { readonly sealed: Buffer; readonly plain: Buffer } {
  const old = keyBits === 'old'
  const sum = (...parts: readonly Uint8Array[]): Buffer =>
    createHash(old ? 'md5' : 'sha1')
      .update(Buffer.concat(parts))
      .digest()
  const secret = Buffer.from(password, 'utf16le')
  const salt = randomBytes(16)
  const number = (value: number, bytes = 4): Buffer => {
    const out = Buffer.alloc(bytes)
    out.writeUIntLE(value, 0, bytes)
    return out
  }
  const base = old
    ? sum(...Array<Buffer>(16).fill(Buffer.concat([sum(secret).subarray(0, 5), salt]))).subarray(
        0,
        5,
      )
    : sum(salt, secret)
  const keyOf = (block: number): Buffer => {
    const key = sum(base, number(block))
    if (old) return key
    return keyBits === 40
      ? Buffer.concat([key.subarray(0, 5), Buffer.alloc(11)])
      : key.subarray(0, keyBits / 8)
  }
  const verifier = randomBytes(16)
  const both = rc4(keyOf(0), Buffer.concat([verifier, sum(verifier)]))
  const provider = Buffer.from('Microsoft Enhanced Cryptographic Provider v1.0\0', 'utf16le')
  const header = Buffer.concat(
    [4, 0, 0x6801, 0x8004, old ? 0 : keyBits, 1, 0, 0]
      .map((value) => number(value))
      .concat(provider),
  )
  const data = old
    ? Buffer.concat([Buffer.from('010001000100', 'hex'), salt, both])
    : Buffer.concat([
        Buffer.from('01000200020004000000', 'hex'),
        number(header.length),
        header,
        number(16),
        salt,
        both.subarray(0, 16),
        number(20),
        both.subarray(16),
      ])
  const first = 4 + workbook.readUInt16LE(2)
  const lock = Buffer.concat([number(0x2f, 2), number(data.length, 2), data])
  const plain = Buffer.concat([workbook.subarray(0, first), lock, workbook.subarray(first)])
  const sealed = Buffer.concat(
    Array.from({ length: Math.ceil(plain.length / 1_024) }, (_, block) =>
      rc4(keyOf(block), plain.subarray(block * 1_024, block * 1_024 + 1_024)),
    ),
  )
  for (let at = 0; at + 4 <= plain.length; ) {
    const id = plain.readUInt16LE(at)
    const end = at + 4 + plain.readUInt16LE(at + 2)
    if (id === 0x85) plain.writeUInt32LE(plain.readUInt32LE(at + 4) + lock.length, at + 4)
    plain.copy(sealed, at, at, [0x809, 0x2f, 0xe1].includes(id) ? end : at + (id === 0x85 ? 8 : 4))
    at = end
  }
  return { sealed, plain }
}

describe('a locked workbook of old', () => {
  for (const keyBits of ['old', 40, 56, 128] as const) {
    test(`of ${keyBits} bits shows its macro sheet to the password of Excel`, async () => {
      const file = (password: string): Buffer =>
        compound({ Workbook: lockedSheets(macroSheet(), password, keyBits).sealed })
      expect(said(await files(file('VelvetSweatshop')))).toEqual([
        'OFFICE_MACRO_SHEET',
        'DOCUMENT_DEFAULT_PASSWORD',
      ])
      expect(said(await files(file(PASSWORD), WORDS))).toEqual([
        'OFFICE_MACRO_SHEET',
        'DOCUMENT_PASSWORD_IN_MAIL',
      ])
      expect(said(await files(file(PASSWORD)))).toEqual(['DOCUMENT_ENCRYPTED'])
    })
  }

  test('is opened to its last byte', () => {
    const biff = (id: number, size: number): Buffer => {
      const head = Buffer.alloc(4)
      head.writeUInt16LE(id)
      head.writeUInt16LE(size, 2)
      return Buffer.concat([head, randomBytes(size)])
    }
    const sheets = Buffer.concat([
      ...[biff(0x809, 16), biff(0xe1, 2), biff(0x85, 20), biff(0x85, 40)],
      ...[biff(0xfc, 3_000), biff(0x3c, 2_500), biff(0x0a, 0)],
    ])
    for (const keyBits of ['old', 40, 56, 128] as const) {
      const { sealed, plain } = lockedSheets(sheets, PASSWORD, keyBits)
      expect(sheetLockOf(sealed)?.open(PASSWORD)?.equals(plain)).toBe(true)
      expect(sheetLockOf(sealed)?.open('another')).toBeNull()
    }
  })

  test('damaged anywhere it is locked, and nothing throws', () => {
    for (const keyBits of ['old', 128] as const) {
      const whole = lockedSheets(macroSheet(), PASSWORD, keyBits).sealed.subarray(0, 300)
      for (let at = 0; at < whole.length; at += 1) {
        const other = Buffer.from(whole)
        other[at] = (other[at] ?? 0) ^ 0xff
        sheetLockOf(other)?.open(PASSWORD)
        sheetLockOf(whole.subarray(0, at))?.open(PASSWORD)
      }
    }
  })
})

test('a lock that is damaged anywhere is a lock still, and nothing throws', () => {
  const { info, packed } = streams(locked('standard.docx'))
  for (let at = 0; at < info.length; at += 1) {
    officeLockOf(info.subarray(0, at), packed)
    const other = Buffer.from(info)
    other[at] = (other[at] ?? 0) ^ 0xff
    officeLockOf(other, packed)
  }
  for (const size of [0, 7, 8, 9, 24]) officeLockOf(info, packed.subarray(0, size))?.open(PASSWORD)
  const quick = agile(EICAR, PASSWORD, { hash: 'sha1', keyBits: 128, rounds: 0 })
  for (let at = 0; at < quick.info.length; at += 1) {
    const other = Buffer.from(quick.info)
    other[at] = (other[at] ?? 0) ^ 0x15
    officeLockOf(other, quick.packed)?.open(PASSWORD)
    officeLockOf(quick.info.subarray(0, at), quick.packed)?.open(PASSWORD)
  }
})
