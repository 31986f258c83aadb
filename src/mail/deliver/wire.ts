/**
 * The bytes of a message on their way out: read in pieces, checked, dots stuffed. Nothing but
 * CRLF line ends ever leaves (faults.md A19), whatever was stored.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { GatewayError, messageOf } from '../../base/errors.ts'
import { PIECE_BYTES } from '../../base/limits.ts'
import { nextControl, wordsOf } from '../../base/octets.ts'
import { type Body, bodySize } from '../../message/body.ts'

/** A bare CR, a bare LF or a NUL: it would be a second message to some other server. */
export class NotCanonicalError extends GatewayError {
  override name = 'NotCanonicalError'
}

/** A body cannot be read in full. The message must not go out. */
export class BodyReadError extends GatewayError {
  override name = 'BodyReadError'
}

const NUL = 0
const LF = 10
const CR = 13
const DOT = 46
const LINE_START_DOT = Buffer.from('\r\n.')
const END = Buffer.from('.\r\n')
const LINE_END_AND_END = Buffer.from('\r\n.\r\n')

/** Bodies up to this size go out in one write together with the final dot. */
const WHOLE_BYTES_MAX = PIECE_BYTES

/** Checks and stuffs a message that comes in pieces; RFC 5321 section 4.5.2. */
export class DotStuffer {
  /** Last byte so far. The start counts as after a line end. */
  #last = LF
  #isStart = true

  /**
   * `piece` itself when it holds no dot at the start of a line, else a stuffed copy.
   * @throws NotCanonicalError on a bare CR, a bare LF or a NUL
   */
  next(piece: Buffer): Buffer {
    if (piece.length === 0) return piece
    const before = this.#isStart ? DOT : this.#last
    assertCanonical(piece, before)
    const leads = (this.#last === LF && piece[0] === DOT) || (this.#last === CR && piece[1] === DOT)
    const last = this.#last
    this.#last = piece[piece.length - 1] ?? LF
    this.#isStart = false
    if (!leads && piece.indexOf(LINE_START_DOT) < 0) return piece
    return stuffed(piece, last)
  }

  /**
   * The final dot, with the line end that a message without a last line end lacks.
   * @throws NotCanonicalError when the message ends in a CR
   */
  end(): Buffer {
    if (this.#last === CR) throw notCanonical()
    return this.#last === LF ? END : LINE_END_AND_END
  }
}

/** `before`: the octet before `piece`. @throws NotCanonicalError */
function assertCanonical(piece: Buffer, before: number): void {
  const words = wordsOf(piece)
  if (before === CR && piece[0] !== LF) throw notCanonical()
  for (let index = before === CR ? 1 : 0; ; ) {
    index = nextControl(piece, words, index)
    if (index === piece.length) return
    const octet = piece[index]
    if (octet === LF || octet === NUL) throw notCanonical()
    if (octet === CR) {
      index += 1
      // What follows the last octet is judged with the next piece.
      if (index === piece.length) return
      if (piece[index] !== LF) throw notCanonical()
    }
    index += 1
  }
}

function stuffed(piece: Buffer, before: number): Buffer {
  // Twice the size is enough for a piece of nothing but dots and line ends.
  const out = Buffer.allocUnsafe(piece.length * 2)
  let length = 0
  let last = before
  for (let index = 0; index < piece.length; index++) {
    const byte = piece[index] as number
    if (byte === DOT && last === LF) out[length++] = DOT
    out[length++] = byte
    last = byte
  }
  return out.subarray(0, length)
}

function notCanonical(): NotCanonicalError {
  return new NotCanonicalError('the body has a bare CR, a bare LF or a NUL', { remedy: 'give-up' })
}

/** Views the same memory: `Buffer` has the native search that `Uint8Array` lacks. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** The whole message with the final dot, in one block. @throws NotCanonicalError */
export function wholeMessage(prepend: string, bytes: Uint8Array): Buffer {
  const stuffer = new DotStuffer()
  const blocks = [stuffer.next(Buffer.from(prepend)), stuffer.next(asBuffer(bytes))]
  blocks.push(stuffer.end())
  return Buffer.concat(blocks)
}

/**
 * The stored bytes in pieces of at most PIECE_BYTES. A piece is valid until the second next one
 * is asked for: two blocks of memory serve a message of any size.
 * @throws BodyReadError when a file cannot be read, or ends early
 */
export async function* bodyPieces(body: Body): AsyncGenerator<Buffer, void, undefined> {
  if (body.kind === 'memory') {
    for (let from = 0; from < body.bytes.length; from += PIECE_BYTES) {
      yield asBuffer(body.bytes.subarray(from, from + PIECE_BYTES))
    }
    return
  }
  const blocks = [Buffer.allocUnsafe(0), Buffer.allocUnsafe(0)]
  let turn = 0
  let file: FileHandle | null = null
  let path = ''
  let restBytes = body.sizeBytes
  try {
    for (const extent of body.extents) {
      if (file === null || extent.path !== path) {
        await file?.close()
        file = null
        path = extent.path
        file = await open(path, 'r')
      }
      for (let done = 0; done < extent.length; ) {
        const length = Math.min(PIECE_BYTES, extent.length - done)
        turn ^= 1
        let block = blocks[turn] as Buffer
        if (block.length < length) blocks[turn] = block = Buffer.allocUnsafe(length)
        await readExactly(file, block, length, extent.offset + done)
        done += length
        restBytes -= length
        yield block.subarray(0, length)
      }
    }
    if (restBytes !== 0) throw new Error('its pieces do not add up to its size')
  } catch (cause) {
    throw new BodyReadError(`the body cannot be read: ${messageOf(cause)}`, {
      remedy: 'retry',
      cause,
    })
  } finally {
    await file?.close().catch(() => undefined)
  }
}

async function readExactly(
  file: FileHandle,
  block: Buffer,
  length: number,
  offset: number,
): Promise<void> {
  for (let got = 0; got < length; ) {
    const { bytesRead } = await file.read(block, got, length - got, offset + got)
    if (bytesRead === 0) throw new Error('the file ends early')
    got += bytesRead
  }
}

/** The bytes of a body of at most WHOLE_BYTES_MAX; null for a larger one. @throws BodyReadError */
export async function smallBody(body: Body): Promise<Uint8Array | null> {
  if (bodySize(body) > WHOLE_BYTES_MAX) return null
  if (body.kind === 'memory') return body.bytes
  const blocks: Buffer[] = []
  for await (const piece of bodyPieces(body)) blocks.push(Buffer.from(piece))
  return blocks.length === 1 ? (blocks[0] as Buffer) : Buffer.concat(blocks)
}
