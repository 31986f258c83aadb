/** What the allow and the block list say of a message, before its score counts. Pure. */
import type { Lists } from '../../config/snapshot.ts'
import { parseAddress } from '../../message/address.ts'
import type { Envelope } from '../../message/envelope.ts'
import type { Finding, Insight, MessageFacts } from '../../message/verdict.ts'

export type Listing = {
  /** `unproven`: an author who is allowed, for whom nobody vouches. It decides nothing. */
  readonly kind: 'block' | 'allow' | 'unproven'
  /** Without a score: it is not weighed. */
  readonly finding: Finding
}

/**
 * A block of the client, of the envelope sender or of an author in From wins over an allowance.
 * Anybody can write any author: one who is allowed is let in only where his domain is among
 * those that vouch for the mail. Null: the score decides.
 */
export function listingOf(
  lists: Lists,
  { clientIp, sender }: Pick<Envelope, 'clientIp' | 'sender'>,
  { authors }: Pick<MessageFacts, 'authors'>,
  { authenticated }: Pick<Insight, 'authenticated'>,
): Listing | null {
  const network = lists.blockedClients.find(clientIp)
  if (network !== null) return blocked(`The client ${clientIp}`, network)
  const entry = senderEntry(lists.blockedSenders, sender)
  if (entry !== null) return blocked(`The sender ${sender}`, entry)
  for (const author of authors) {
    const named = senderEntry(lists.blockedSenders, author)
    if (named !== null) return blocked(`The author ${author}`, named)
  }
  const allowed = lists.allowedClients.find(clientIp)
  if (allowed !== null) {
    const evidence = `The client ${clientIp} is on the allow list, by the entry ${allowed}.`
    return { kind: 'allow', finding: { rule: 'ALLOW_LIST', score: 0, evidence } }
  }
  return allowedAuthor(lists, authors, authenticated)
}

/** All authors must be allowed: one who is not may have written it. */
function allowedAuthor(
  { allowedSenders }: Lists,
  authors: readonly string[],
  authenticated: readonly string[],
): Listing | null {
  const entries = authors.map((author) => senderEntry(allowedSenders, author))
  const [author] = authors
  const [entry] = entries
  if (author === undefined || entry === undefined || entry === null) return null
  if (entries.includes(null)) return null
  const unproven = authors.find(
    (each) => !authenticated.includes(each.slice(each.lastIndexOf('@') + 1)),
  )
  if (unproven === undefined) {
    const evidence = `The author ${author} is on the allow list, by the entry ${entry}, and the domain vouches for it.`
    return { kind: 'allow', finding: { rule: 'ALLOW_LIST', score: 0, evidence } }
  }
  const evidence = `The author ${unproven} is on the allow list, but nobody proves that it wrote this; the entry does not count.`
  return { kind: 'unproven', finding: { rule: 'ALLOW_UNPROVEN', score: 0, evidence } }
}

function blocked(who: string, entry: string): Listing {
  const evidence = `${who} is on the block list, by the entry ${entry}.`
  return { kind: 'block', finding: { rule: 'BLOCK_LIST', score: 0, evidence } }
}

/** `a@b` or `@b`; a subdomain is another domain. */
function senderEntry(entries: ReadonlySet<string>, text: string): string | null {
  if (entries.size === 0) return null
  const address = parseAddress(text)
  if (address === null || address.domain === '') return null
  const whole = `${address.local.toLowerCase()}@${address.domain}`
  if (entries.has(whole)) return whole
  const domain = `@${address.domain}`
  return entries.has(domain) ? domain : null
}
