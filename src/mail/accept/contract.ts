/** What a session asks of its connection and of whoever knows clients and recipients. */
import type { Clock } from '../../base/clock.ts'
import type { MessageIds } from '../../base/ids.ts'
import type { Observer } from '../../base/observe.ts'
import type { Snapshot } from '../../config/snapshot.ts'
import type { Reply } from '../../message/reply.ts'
import type { Receiver } from './receive.ts'
import type { ClientFacts } from './visitor.ts'

/** What a session asks of its connection. */
export type Line = {
  readonly write: (text: string) => void
  /** Writes, then closes the connection. */
  readonly end: (text: string) => void
  readonly pause: () => void
  readonly resume: () => void
  /** Hands the connection to TLS after `text` is out; what the client sent already is dropped. */
  readonly startTls: (text: string) => void
}

export type SessionDeps = {
  readonly hostname: string
  readonly clock: Clock
  readonly observer: Observer
  readonly ids: MessageIds
  readonly receiver: Receiver
  /** The configuration now: taken anew at each MAIL, kept for the message. */
  readonly snapshot: () => Snapshot
  readonly mayRelay: (ip: string) => boolean
  /** No limits for this client (`limits.exempt`). */
  readonly isExempt: (ip: string) => boolean
  /** False when one more message from this client is too many. */
  readonly begun: (ip: string) => boolean
  /** False when one more recipient from this client is too many. */
  readonly addressed: (ip: string) => boolean
  /** Seconds after which a recipient of this client may come again; 0: now. */
  readonly greylisted: (
    ip: string,
    sender: string,
    recipient: string,
    clientName: string | null,
  ) => number
  /** What is known of the client before its mail; waited for at the first recipient. */
  readonly known?: () => ClientFacts | Promise<ClientFacts>
  /** It said EHLO with this name. */
  readonly greeted?: (name: string) => void
  /** Whether whoever has the mailbox takes it; false: there is none. Waited for. */
  readonly exists?: (recipient: string, snapshot: Snapshot) => boolean | Promise<boolean>
  /** It asked for a recipient that nobody has: true when its network is refused from now on. */
  readonly failed?: (ip: string) => boolean
  /** Its network is refused (mail/accept/bans). */
  readonly isBanned?: (ip: string) => boolean
  /** A message of this client was accepted. */
  readonly behaved: (ip: string) => void
  readonly tlsOffered: boolean
  /** Why no further message may begin; null: it may. */
  readonly closed: () => Reply | null
  /** What a peer that asks for a sign of life reads after the code; null: it is no peer. */
  readonly witness?: (question: string) => string | null
}
