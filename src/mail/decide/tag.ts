/** What a message that is delivered says of its score, for the rules of mailboxes. Pure. */
import type { Verdict } from '../../message/verdict.ts'

/**
 * Header fields with CRLF: `X-Spam-Flag` and its like as mailboxes know them, from the score that
 * `policy.tag` names. Empty below it. A field of this name that came with the mail proves nothing,
 * and whoever reads it takes the first one, which is ours.
 */
export function tagFields(verdicts: readonly Verdict[], from: number): string {
  const worst = verdicts.reduce(
    (most, { score }) => Math.max(most, score),
    Number.NEGATIVE_INFINITY,
  )
  if (worst < from) return ''
  const [first] = verdicts
  const rules = (first?.rules ?? []).slice(0, RULES_MAX).join(',')
  return `X-Spam-Flag: YES\r\nX-Spam-Score: ${worst}\r\nX-Spam-Rules: ${rules}\r\n`
}

const RULES_MAX = 10
