/** Outcome: the end of one attempt for one recipient. */
import type { Reply } from './reply.ts'

export type Outcome =
  /** The next hop took the message with a 2xx after the final dot. */
  | {
      readonly kind: 'delivered'
      /** `host[ip]:port` of the next hop. */
      readonly host: string
      readonly tls: string | null
      readonly reply: Reply
      /** The next hop offers DSN (RFC 3461): it reports success itself, we report `relayed` else. */
      readonly dsnPassedOn?: boolean
    }
  /**
   * Not now. `dotSent`: the final dot went out and no answer came, so it may have arrived;
   * the next delivery is counted as a possible duplicate (faults.md C20).
   */
  | {
      readonly kind: 'later'
      readonly host: string | null
      /** One line in words: the reply of the next hop, or what failed. */
      readonly cause: string
      readonly dotSent: boolean
    }
  /** A 5xx, a null MX, or something that no retry can change. */
  | { readonly kind: 'never'; readonly host: string | null; readonly reply: Reply }
