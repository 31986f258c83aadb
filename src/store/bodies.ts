/**
 * Held messages: one sealed file each, DIR/held/<last character>/<mid>. The file alone is enough to
 * rebuild the index. AES-256-GCM in frames, so that any size is written and read with the memory
 * of one frame, and a flipped bit, a cut or a swapped frame is an error and never a message.
 *
 *   magic 'PSTHELD' 1 byte version | salt 32 | length of meta 4 (big endian)
 *   frame 0: meta as JSON | frame 1..n: the body, 256 KB each but the last
 *
 * Every frame is ciphertext and a tag of 16 bytes. The key of a file is derived from DIR/held.key
 * and its salt, so a counter is nonce enough; mid, number and end are authenticated with it.
 */
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, unlinkSync } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { AssertionError, assert, StoreError } from '../base/errors.ts'
import {
  atomicWrite,
  codeOf,
  directorySynced,
  readIfThere,
  storeError,
  UNFINISHED,
} from '../base/files.ts'
import { type MessageId, parseMessageId } from '../base/ids.ts'
import type { Random } from '../base/random.ts'
import type { HeldMail } from './held-mail.ts'

export type { HeldMail } from './held-mail.ts'

/** The bytes of a message: all of them, or as they come. */
export type HeldBytes =
  | { readonly kind: 'memory'; readonly bytes: Uint8Array }
  | {
      readonly kind: 'pieces'
      readonly sizeBytes: number
      readonly pieces: AsyncIterable<Uint8Array>
    }

const MAGIC = Buffer.from('PSTHELD\x01', 'latin1')
const SALT_BYTES = 32
const HEADER_BYTES = MAGIC.length + SALT_BYTES + 4
const TAG_BYTES = 16
/** Of the format: files that are there have it. */
export const FRAME_BYTES = 64 * 1024
/** Envelope with 10,000 recipients of 254 bytes, and then some. */
const META_BYTES_MAX = 32 * 1024 * 1024

export class Bodies {
  readonly #directory: string
  readonly #key: Buffer
  readonly #random: Random
  /** Folders that are known to be there, durably; at most 32. */
  readonly #folders = new Set<string>()

  /** Makes DIR/held and DIR/held.key when they are not there. @throws StoreError */
  constructor(dataDirectory: string, deps: { readonly random: Random }) {
    this.#directory = join(dataDirectory, 'held')
    this.#random = deps.random
    this.#key = openKey(join(dataDirectory, 'held.key'), this.#directory, deps.random)
  }

  /**
   * Writes the message, durably: file and directory are synced when this resolves. A file of the
   * same id is replaced. @throws StoreError when the disk refuses; nothing is left then
   */
  async write(mail: HeldMail, body: HeldBytes): Promise<void> {
    const { id } = mail.envelope
    const folder = this.#folder(id)
    const unfinished = join(folder, id + UNFINISHED)
    try {
      await this.#makeFolder(folder)
      const file = await open(unfinished, 'w', 0o600)
      try {
        await this.#writeFrames(file, mail, body)
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(unfinished, join(folder, id))
      await directorySynced(folder)
    } catch (error) {
      await rm(unfinished, { force: true }).catch(() => {})
      if (error instanceof StoreError || error instanceof AssertionError) throw error
      throw storeError(`The held message ${id} could not be written`, error)
    }
  }

  /** What is known of one held message; null when it is not there. @throws StoreError */
  async meta(id: MessageId): Promise<HeldMail | null> {
    const opened = await this.#open(id)
    if (opened === null) return null
    try {
      return opened.mail
    } finally {
      await opened.file.close()
    }
  }

  /**
   * The bytes of the body in order, each piece verified before it is handed out; null when it is
   * not there. The iterator throws StoreError at the first piece that is not what was written,
   * so a reader that takes all of it has all of it.
   */
  async read(id: MessageId): Promise<{
    readonly mail: HeldMail
    readonly sizeBytes: number
    readonly pieces: AsyncIterable<Uint8Array>
  } | null> {
    const opened = await this.#open(id)
    if (opened === null) return null
    // Closed at once and opened again by who reads: one who never does must not leak a file.
    await opened.file.close()
    return { mail: opened.mail, sizeBytes: opened.sizeBytes, pieces: this.#pieces(id) }
  }

  /** Removes the file, durably enough: the name is gone and the directory synced. @throws StoreError */
  async remove(id: MessageId): Promise<void> {
    const folder = this.#folder(id)
    try {
      await unlink(join(folder, id))
      await directorySynced(folder)
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') {
        throw storeError(`The held message ${id} could not be removed`, error)
      }
    }
  }

  /** Its file is there; nothing of it is read. */
  has(id: MessageId): boolean {
    return existsSync(join(this.#folder(id), id))
  }

  /** Ids of all files; left-overs of a crash are removed on the way. For the start. */
  list(): readonly MessageId[] {
    const ids: MessageId[] = []
    for (const folder of readdirSync(this.#directory)) {
      for (const name of readdirSync(join(this.#directory, folder))) {
        const id = parseMessageId(name)
        if (id !== null) ids.push(id)
        else if (name.endsWith(UNFINISHED)) unlinkSync(join(this.#directory, folder, name))
      }
    }
    return ids.sort()
  }

  async #makeFolder(folder: string): Promise<void> {
    if (this.#folders.has(folder)) return
    await mkdir(folder, { recursive: true, mode: 0o700 })
    await directorySynced(this.#directory)
    this.#folders.add(folder)
  }

  async #writeFrames(file: FileHandle, mail: HeldMail, body: HeldBytes): Promise<void> {
    const salt = Buffer.from(this.#random.bytes(SALT_BYTES))
    const meta = Buffer.from(JSON.stringify({ ...mail, bodyBytes: sizeOf(body) }))
    assert(meta.length <= META_BYTES_MAX, 'an envelope is bounded')
    const header = Buffer.alloc(HEADER_BYTES)
    MAGIC.copy(header)
    salt.copy(header, MAGIC.length)
    header.writeUInt32BE(meta.length, HEADER_BYTES - 4)
    const key = this.#fileKey(salt)
    // Header, meta and a first frame go out together: most held mails are one write.
    let parts = [header, ...seal(key, mail.envelope.id, { number: 0, last: false }, meta)]
    let number = 1
    let written = 0
    const sizeBytes = sizeOf(body)
    for await (const piece of framesOf(body)) {
      written += piece.length
      parts.push(...seal(key, mail.envelope.id, { number, last: written === sizeBytes }, piece))
      await writeAll(file, parts)
      parts = []
      number += 1
    }
    await writeAll(file, parts)
    if (written !== sizeBytes) throw notWhole(mail.envelope.id, written, sizeBytes)
  }

  async #open(id: MessageId): Promise<Opened | null> {
    let file: FileHandle
    try {
      file = await open(join(this.#folder(id), id), 'r')
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return null
      throw storeError(`The held message ${id} could not be read`, error)
    }
    try {
      const header = await readExactly(file, id, 0, HEADER_BYTES)
      const metaBytes = header.readUInt32BE(HEADER_BYTES - 4)
      if (!header.subarray(0, MAGIC.length).equals(MAGIC) || metaBytes > META_BYTES_MAX)
        throw broken(id)
      const key = this.#fileKey(header.subarray(MAGIC.length, HEADER_BYTES - 4))
      const sealed = await readExactly(file, id, HEADER_BYTES, metaBytes + TAG_BYTES)
      const text = unseal(key, id, { number: 0, last: false }, sealed).toString()
      // Authenticated: only this program wrote it.
      const { bodyBytes, ...mail } = JSON.parse(text) as HeldMail & { readonly bodyBytes: number }
      return {
        file,
        mail,
        key,
        sizeBytes: bodyBytes,
        bodyOffset: HEADER_BYTES + metaBytes + TAG_BYTES,
      }
    } catch (error) {
      await file.close()
      if (error instanceof StoreError) throw error
      throw storeError(`The held message ${id} could not be read`, error)
    }
  }

  async *#pieces(id: MessageId): AsyncGenerator<Uint8Array> {
    const opened = await this.#open(id)
    if (opened === null) throw broken(id)
    const { file, key, sizeBytes } = opened
    try {
      const frame = Buffer.allocUnsafe(Math.min(FRAME_BYTES, sizeBytes) + TAG_BYTES)
      let offset = opened.bodyOffset
      let done = 0
      for (let number = 1; done < sizeBytes; number++) {
        const length = Math.min(FRAME_BYTES, sizeBytes - done)
        const sealed = frame.subarray(0, length + TAG_BYTES)
        await fill(file, id, offset, sealed)
        done += length
        offset += sealed.length
        yield unseal(key, id, { number, last: done === sizeBytes }, sealed)
      }
    } catch (error) {
      if (error instanceof StoreError) throw error
      throw storeError(`The held message ${id} could not be read`, error)
    } finally {
      await file.close()
    }
  }

  #fileKey(salt: Uint8Array): Buffer {
    return Buffer.from(hkdfSync('sha256', this.#key, salt, 'postern held 1', 32))
  }

  #folder(id: MessageId): string {
    // The end of an id is a count, so the 32 folders fill evenly; its beginning is a time.
    return join(this.#directory, id.slice(-1))
  }
}

type Opened = {
  readonly file: FileHandle
  readonly mail: HeldMail
  readonly key: Buffer
  readonly sizeBytes: number
  readonly bodyOffset: number
}

type Frame = { readonly number: number; readonly last: boolean }

function seal(
  key: Buffer,
  id: MessageId,
  frame: Frame,
  plain: Uint8Array,
): readonly [ciphertext: Buffer, tag: Buffer] {
  const cipher = createCipheriv('aes-256-gcm', key, nonce(frame))
  cipher.setAAD(associated(id, frame))
  const sealed = cipher.update(plain)
  cipher.final()
  return [sealed, cipher.getAuthTag()]
}

function unseal(key: Buffer, id: MessageId, frame: Frame, sealed: Buffer): Buffer {
  const end = sealed.length - TAG_BYTES
  const decipher = createDecipheriv('aes-256-gcm', key, nonce(frame), { authTagLength: TAG_BYTES })
  decipher.setAAD(associated(id, frame))
  decipher.setAuthTag(sealed.subarray(end))
  const plain = decipher.update(sealed.subarray(0, end))
  try {
    decipher.final()
  } catch (error) {
    throw broken(id, error)
  }
  return plain
}

function nonce({ number }: Frame): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32BE(number, 8)
  return bytes
}

function associated(id: MessageId, { number, last }: Frame): Buffer {
  return Buffer.from(`postern held 1 ${id} ${number} ${last ? 'last' : 'more'}`)
}

function broken(id: MessageId, cause?: unknown): StoreError {
  return new StoreError(`The held message ${id} is damaged on the disk`, {
    remedy: 'ask-operator',
    cause,
  })
}

function sizeOf(body: HeldBytes): number {
  return body.kind === 'memory' ? body.bytes.length : body.sizeBytes
}

function notWhole(id: MessageId, written: number, sizeBytes: number): StoreError {
  return new StoreError(`${id} came with ${written} of ${sizeBytes} bytes`, { remedy: 'retry' })
}

/**
 * The bytes of a body in frames of exactly FRAME_BYTES, but for the last. A frame holds its bytes
 * until the next one is asked for.
 */
async function* framesOf(body: HeldBytes): AsyncGenerator<Uint8Array> {
  if (body.kind === 'memory') {
    for (let offset = 0; offset < body.bytes.length; offset += FRAME_BYTES) {
      yield body.bytes.subarray(offset, offset + FRAME_BYTES)
    }
    return
  }
  const frame = Buffer.allocUnsafe(Math.min(FRAME_BYTES, body.sizeBytes))
  let filled = 0
  for await (const piece of body.pieces) {
    let taken = 0
    while (taken < piece.length) {
      const part = piece.subarray(taken, taken + frame.length - filled)
      if (part.length === 0) return
      frame.set(part, filled)
      filled += part.length
      taken += part.length
      if (filled < frame.length) continue
      yield frame
      filled = 0
    }
  }
  if (filled > 0) yield frame.subarray(0, filled)
}

async function writeAll(file: FileHandle, parts: readonly Buffer[]): Promise<void> {
  let rest = parts.filter(({ length }) => length > 0)
  while (rest.length > 0) {
    let { bytesWritten } = await file.writev(rest)
    rest = rest.flatMap((part) => {
      const skipped = Math.min(bytesWritten, part.length)
      bytesWritten -= skipped
      return skipped === part.length ? [] : [part.subarray(skipped)]
    })
  }
}

async function readExactly(
  file: FileHandle,
  id: MessageId,
  offset: number,
  length: number,
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  await fill(file, id, offset, bytes)
  return bytes
}

/** @throws StoreError when the file ends before `bytes` is full */
async function fill(file: FileHandle, id: MessageId, offset: number, bytes: Buffer): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    const { bytesRead } = await file.read(bytes, done, bytes.length - done, offset + done)
    if (bytesRead === 0) throw broken(id)
    done += bytesRead
  }
}

/** The master key of the held bodies; without it they cannot be read, so it is never remade. */
function openKey(path: string, directory: string, random: Random): Buffer {
  const there = readIfThere(path)
  if (there !== null) {
    const key = Buffer.from(there.trim(), 'hex')
    if (key.length === 32) return key
    throw new StoreError(`${path} is not a key of 64 hex digits`, { remedy: 'ask-operator' })
  }
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  if (readdirSync(directory).length > 0) {
    throw new StoreError(`${path} is missing, and without it held mail cannot be read`, {
      remedy: 'ask-operator',
    })
  }
  const key = Buffer.from(random.bytes(32))
  atomicWrite(path, `${key.toString('hex')}\n`)
  return key
}
