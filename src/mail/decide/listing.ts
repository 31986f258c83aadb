/** What the allow and the block list say of a message, before its score counts. Pure. */
import type { Lists } from '../../config/snapshot.ts'
import { parseAddress } from '../../message/address.ts'
import type { Envelope } from '../../message/envelope.ts'
import type { Finding, MessageFacts } from '../../message/verdict.ts'

export type Listing = {
  readonly kind: 'block' | 'allow'
  /** Without a score: it is not weighed, it decides. */
  readonly finding: Finding
}

/**
 * A block of the client, of the envelope sender or of an author in From wins over an allowance,
 * which is for clients only. Null: the score decides.
 */
export function listingOf(
  lists: Lists,
  { clientIp, sender }: Pick<Envelope, 'clientIp' | 'sender'>,
  { authors }: Pick<MessageFacts, 'authors'>,
): Listing | null {
  const network = lists.blockedClients.find(clientIp)
  if (network !== null) return blocked(`The client ${clientIp}`, network)
  const entry = senderEntry(lists, sender)
  if (entry !== null) return blocked(`The sender ${sender}`, entry)
  for (const author of authors) {
    const named = senderEntry(lists, author)
    if (named !== null) return blocked(`The author ${author}`, named)
  }
  const allowed = lists.allowedClients.find(clientIp)
  if (allowed === null) return null
  const evidence = `The client ${clientIp} is on the allow list, by the entry ${allowed}.`
  return { kind: 'allow', finding: { rule: 'ALLOW_LIST', score: 0, evidence } }
}

function blocked(who: string, entry: string): Listing {
  const evidence = `${who} is on the block list, by the entry ${entry}.`
  return { kind: 'block', finding: { rule: 'BLOCK_LIST', score: 0, evidence } }
}

/** `a@b` or `@b`; a subdomain is another domain. */
function senderEntry({ blockedSenders }: Lists, text: string): string | null {
  if (blockedSenders.size === 0) return null
  const address = parseAddress(text)
  if (address === null || address.domain === '') return null
  const whole = `${address.local.toLowerCase()}@${address.domain}`
  if (blockedSenders.has(whole)) return whole
  const domain = `@${address.domain}`
  return blockedSenders.has(domain) ? domain : null
}
