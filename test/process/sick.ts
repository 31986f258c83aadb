/**
 * An inspector process with every illness that the pool must survive: what it does is a word in
 * the mail. It speaks the real frames and looks at healthy mail with the real inspectors.
 */
import { readSync, writeSync } from 'node:fs'
import type { Answer } from '../../src/mail/inspect/answers.ts'
import {
  encodeFrame,
  FrameReader,
  ORDER_BYTES_MAX,
  type Order,
  type Said,
} from '../../src/mail/inspect/frames.ts'
import { inspectMail } from '../../src/mail/inspect/inspectors.ts'
import { PLAIN_CONFIG } from '../../src/mail/inspect/look.ts'

const reader = new FrameReader(ORDER_BYTES_MAX)
const eaten: Uint8Array[] = []

function say(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(1, bytes, at)
}

function report(head: Said): void {
  say(encodeFrame(head))
}

/** As the real one does in a loop: it does not read its input. */
function hang(): never {
  for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000)
}

async function obey(order: Extract<Order, { kind: 'inspect' }>, raw: Buffer): Promise<void> {
  const answers: Answer[] = []
  const task = { session: order.session, config: PLAIN_CONFIG, answers: {}, model: null }
  const seen = await inspectMail(raw, task, order.inspectors, (answer) => answers.push(answer))
  const word = /ILLNESS-([A-Z]+)/.exec(raw.toString('latin1'))?.[1]
  switch (word) {
    case 'HANG':
      return hang()
    case 'HALF':
      // The first inspectors answer, then one hangs.
      report({ kind: 'answers', job: order.job, answers: answers.slice(0, 2), seen: null })
      return hang()
    case 'CRASH':
      process.kill(process.pid, 'SIGSEGV')
      return hang()
    case 'EAT':
      for (let piece = 0; piece < 40; piece += 1)
        eaten.push(new Uint8Array(8 << 20).fill(piece + 1))
      return hang()
    case 'NOISE':
      return say(Buffer.alloc(4_096, 0xff))
    case 'FORGED':
      // An answer to a job that is not under way, and clean at that.
      report({ kind: 'answers', job: order.job + 1, answers: [], seen })
      return hang()
    case 'EMPTY':
      report({ kind: 'answers', job: order.job, answers: [], seen })
      return
    case 'FAILS':
      report({ kind: 'failed', job: order.job, cause: 'it threw' })
      return
    default:
      report({ kind: 'answers', job: order.job, answers, seen })
  }
}

report({ kind: 'hello', missing: ['everything'] })
for (;;) {
  const room = reader.room(65_536)
  const length = readSync(0, room, 0, room.length, null)
  if (length === 0) break
  reader.filled(length)
  for (let frame = reader.next(); frame !== null; frame = reader.next()) {
    const order = frame.head as Order
    if (order.kind === 'inspect') await obey(order, frame.raw)
  }
}
