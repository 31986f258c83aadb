/** What the queue asks of delivery: one attempt at one message for recipients of one route. */
import type { MessageId } from '../../base/ids.ts'
import type { Body } from '../../message/body.ts'
import type { Recipient } from '../../message/envelope.ts'
import type { NextHop } from '../../message/nexthop.ts'
import type { Outcome } from '../../message/outcome.ts'

export type Delivery = {
  readonly id: MessageId
  /** Reverse-path without angle brackets; empty for the null sender. */
  readonly sender: string
  /** At least one. */
  readonly recipients: readonly Recipient[]
  readonly eightBit: boolean
  readonly smtpUtf8: boolean
  readonly ret: 'FULL' | 'HDRS' | null
  readonly envid: string | null
  /** Our own header lines, each with CRLF; they go out before the body. */
  readonly prepend: string
  readonly body: Body
  /**
   * Makes the TRY marks durable; awaited before the final dot of the first hop that gets one.
   * When it rejects, the attempt ends without a dot and every outcome is `later`.
   */
  readonly beforeDot: () => Promise<void>
  /**
   * Awaited after `beforeDot` and before a dot that is not for all: these places (indexes of
   * `recipients`) were refused before it, so nothing about them is in doubt. As `beforeDot` when it
   * rejects.
   */
  readonly spared?: (places: readonly number[]) => Promise<void>
  /** Asked right before each final dot; false: it does not leave, and every outcome is `later`. */
  readonly mayDot?: () => boolean
}

/** Where to: the next hops of a domain in order of priority, or the MX records of its name. */
export type Route =
  | { readonly kind: 'hops'; readonly hops: readonly NextHop[] }
  | { readonly kind: 'mx'; readonly domain: string }

export type DeliverySettings = {
  /** Name for EHLO. */
  readonly hostname: string
  readonly timeoutMs: number
}

export interface Deliverer {
  /**
   * One attempt, all hops of the route in turn until one takes it. One outcome a recipient, in
   * their order. Never rejects. Nothing but CRLF line ends and stuffed dots ever goes out.
   */
  deliver(delivery: Delivery, route: Route, settings: DeliverySettings): Promise<readonly Outcome[]>
  /** Ends idle connections; running attempts finish. */
  close(): Promise<void>
}
