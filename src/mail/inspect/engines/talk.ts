/** One question to an engine over TCP: bytes out in pieces, one answer back, within a time. */
import { open } from 'node:fs/promises'
import type { Clock } from '../../../base/clock.ts'
import { messageOf } from '../../../base/errors.ts'
import type { Body } from '../../../message/body.ts'

const PIECE_BYTES = 64 * 1024
/** Longest answer that is read. */
const ANSWER_BYTES_MAX = 1024 * 1024

/** The octets of a body, at most 64 KB at a time. @throws Error when a file is shorter than it was */
export async function* piecesOf(body: Body): AsyncGenerator<Uint8Array> {
  if (body.kind === 'memory') {
    for (let at = 0; at < body.bytes.length; at += PIECE_BYTES)
      yield body.bytes.subarray(at, at + PIECE_BYTES)
    return
  }
  for (const { path, offset, length } of body.extents) {
    const file = await open(path, 'r')
    try {
      for (let at = 0; at < length; ) {
        const piece = Buffer.allocUnsafe(Math.min(PIECE_BYTES, length - at))
        const { bytesRead } = await file.read(piece, 0, piece.length, offset + at)
        if (bytesRead === 0) throw new Error('a body is shorter than it was')
        yield piece.subarray(0, bytesRead)
        at += bytesRead
      }
    } finally {
      await file.close()
    }
  }
}

export type Talk = {
  readonly host: string
  readonly port: number
  readonly timeoutMs: number
  /** What is sent, in order. */
  readonly pieces: AsyncIterable<Uint8Array>
  /** The answer is whole before the engine closes; without it the end of the stream ends it. */
  readonly isWhole?: (answer: Buffer) => boolean
}

/** `isSent`: all of the question was sent before the answer was whole. */
export type Answered = { readonly bytes: Buffer; readonly isSent: boolean }

/** @throws Error on a refused connection, on silence, and on an answer that never ends */
export function talk(ask: Talk, clock: Clock): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    let socket: Bun.Socket | null = null
    let isOver = false
    let isSent = false
    let wake: (() => void) | null = null
    const end = (act: () => void): void => {
      if (isOver) return
      isOver = true
      timer.cancel()
      wake?.()
      socket?.terminate()
      act()
    }
    const fail = (error: unknown): void => end(() => reject(new Error(messageOf(error))))
    const done = (): void => end(() => resolve({ bytes: Buffer.concat(chunks), isSent }))
    const timer = clock.after(ask.timeoutMs, () =>
      fail(new Error(`no answer in ${ask.timeoutMs} ms`)),
    )
    const send = async (to: Bun.Socket): Promise<void> => {
      for await (const piece of ask.pieces) {
        for (let at = 0; at < piece.length && !isOver; ) {
          const count = to.write(piece, at)
          if (count < 0) throw new Error('the connection was closed')
          at += count
          if (at < piece.length) {
            await new Promise<void>((next) => {
              wake = next
            })
          }
        }
        if (isOver) return
      }
      isSent = true
    }
    Bun.connect({
      hostname: ask.host,
      port: ask.port,
      socket: {
        open: (opened) => {
          socket = opened
          if (isOver) opened.terminate()
          else void send(opened).catch(fail)
        },
        drain: () => wake?.(),
        data: (_, data) => {
          if (isOver) return
          chunks.push(Buffer.from(data))
          bytes += data.length
          if (bytes > ANSWER_BYTES_MAX) fail(new Error('the answer does not end'))
          else if (ask.isWhole?.(Buffer.concat(chunks)) === true) done()
        },
        close: () => {
          if (ask.isWhole === undefined || bytes === 0) {
            if (bytes === 0) fail(new Error('it closed without an answer'))
            else done()
          } else fail(new Error('it closed in the middle of its answer'))
        },
        error: (_, error) => fail(error),
        connectError: (_, error) => fail(error),
      },
    }).catch(fail)
  })
}
