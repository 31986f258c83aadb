/** What a COMMIT says in tests: one that has all it needs, and differs in what a test is about. */
import type { MessageId } from '../src/base/ids.ts'
import { freshRecipient, type NewCommit } from '../src/store/queued.ts'

/** Recipients are `r0@example.com`, `r1@example.com`… `nowMs`: when it came in; it lives for 1,000 s. */
export function aCommit(
  id: MessageId,
  sizeBytes: number,
  recipients: number,
  nowMs: number,
): NewCommit {
  return {
    envelope: {
      id,
      receivedMs: nowMs,
      clientIp: '192.0.2.1',
      greeting: 'client.test',
      protocol: 'ESMTP',
      tls: null,
      outbound: false,
      sender: 'a@x.test',
      eightBit: false,
      smtpUtf8: false,
      ret: null,
      envid: null,
      recipients: Array.from({ length: recipients }, (_, at) => ({
        address: `r${at}@example.com`,
        notify: null,
        orcpt: null,
      })),
    },
    prepend: '',
    sizeBytes,
    sha256: '',
    expiresMs: nowMs + 1e6,
    facts: { subject: null, from: null, messageId: null, authors: [] },
    verdicts: [],
    judgement: null,
    dsn: false,
    heldMoved: false,
    recipients: Array.from({ length: recipients }, () => freshRecipient('queued')),
  }
}
