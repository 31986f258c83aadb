/** Tells a sender what became of a message, when the sender may be told: a message of our own. */
import type { Clock } from '../../base/clock.ts'
import type { MessageId } from '../../base/ids.ts'
import { HEADER_BYTES_MAX, PIECE_BYTES } from '../../base/limits.ts'
import type { Observer } from '../../base/observe.ts'
import type { Reply } from '../../message/reply.ts'
import { NO_FACTS } from '../../message/verdict.ts'
import type { Queue } from '../../store/queue.ts'
import { freshRecipient, type Message } from '../../store/queued.ts'

export type Notice = {
  readonly message: Message
  readonly kind: 'failure' | 'delay' | 'success'
  /** Recipients by index, with the reply that is passed on. */
  readonly about: readonly { readonly index: number; readonly reply: Reply }[]
}

/** A notification ready to go. */
export type BuiltNotice = {
  /** Canonical bytes. */
  readonly bytes: Uint8Array
  readonly recipient: string
  readonly smtpUtf8: boolean
  readonly subject: string
}

export type NotifyDeps = {
  readonly queue: Queue
  readonly clock: Clock
  readonly observer: Observer
  readonly expireMs: number
  /** Null when nobody may or wants to be told. */
  readonly build: (notice: Notice, header: Uint8Array) => BuiltNotice | null
  readonly enqueued: (message: Message) => void
}

/**
 * Queues a notification; it is durable when this resolves. Its id follows from the message, the
 * recipients and the kind: asked twice, as after a crash, there is one.
 * @throws StoreError when the spool cannot take it
 */
export async function notify(notice: Notice, deps: NotifyDeps): Promise<void> {
  const { message, kind, about } = notice
  if (message.commit.dsn || message.envelope.sender === '') return
  const built = deps.build(notice, await headerOf(message, deps.queue))
  if (built === null) return
  const id = derivedId(
    message.id,
    kind,
    about.map(({ index }) => index),
  )
  if (deps.queue.knows(id)) return
  const draft = deps.queue.draft(id)
  for (let offset = 0; offset < built.bytes.length; offset += PIECE_BYTES) {
    draft.add(built.bytes.subarray(offset, offset + PIECE_BYTES))
  }
  const nowMs = deps.clock.wallMs()
  const queued = await deps.queue.commit(
    draft,
    {
      envelope: {
        id,
        receivedMs: nowMs,
        clientIp: '',
        greeting: '',
        protocol: 'ESMTP',
        tls: null,
        outbound: true,
        sender: '',
        eightBit: built.smtpUtf8,
        smtpUtf8: built.smtpUtf8,
        ret: null,
        envid: null,
        recipients: [{ address: built.recipient, notify: 'NEVER', orcpt: null }],
      },
      prepend: '',
      sizeBytes: built.bytes.length,
      sha256: new Bun.CryptoHasher('sha256').update(built.bytes).digest('hex'),
      expiresMs: nowMs + deps.expireMs,
      facts: { ...NO_FACTS, subject: built.subject },
      verdicts: [],
      judgement: null,
      dsn: true,
      heldMoved: false,
      recipients: [freshRecipient('queued')],
    },
    built.bytes,
  )
  deps.observer.emit('queue.bounced', { message: message.id, notification: id, kind })
  deps.enqueued(queued)
}

/** The header block of a message, at most HEADER_BYTES_MAX. */
async function headerOf(message: Message, queue: Queue): Promise<Uint8Array> {
  message.pins += 1
  try {
    for await (const chunk of queue.read(message.outgoing())) {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length)
      const end = bytes.indexOf('\r\n\r\n')
      return bytes.subarray(0, Math.min(end < 0 ? bytes.length : end + 2, HEADER_BYTES_MAX))
    }
    return new Uint8Array()
  } finally {
    message.pins -= 1
  }
}

const ALPHABET = '0123456789abcdefghjkmnpqrstvwxyz'

/** A message id from a hash; the first character keeps it within 128 bits. */
function derivedId(id: MessageId, kind: string, indexes: readonly number[]): MessageId {
  const text = `${id} ${kind} ${indexes.join(',')}`
  const digest = new Bun.CryptoHasher('sha256').update(text).digest()
  let derived = ALPHABET[(digest[0] ?? 0) & 7] ?? ''
  for (let at = 1; at < 26; at++) derived += ALPHABET[(digest[at] ?? 0) & 31]
  return derived as MessageId
}
