/** What the walk over the parts itself says: bounds that were met, places where readers differ, what nobody can look into. */
import type { Mail, MimeFlaw } from '../../message/mime.ts'
import type { Finding } from '../../message/verdict.ts'

const RULES: Readonly<Record<MimeFlaw['kind'], { readonly rule: string; readonly score: number }>> =
  {
    /** Held: what lies beyond a bound was not looked at, and unseen is not clean. */
    limit: { rule: 'MIME_LIMIT', score: 8 },
    /** Held: another reader may find what we did not. */
    ambiguous: { rule: 'MIME_AMBIGUOUS', score: 8 },
    broken: { rule: 'MIME_BROKEN', score: 4 },
  }

/** One finding a kind, the first facts as evidence. */
export function parseFindings(mail: Mail): readonly Finding[] {
  if (mail.flaws.length === 0 && !mail.encrypted) return []
  const findings: Finding[] = []
  for (const kind of ['limit', 'ambiguous', 'broken'] as const) {
    const facts = mail.flaws.filter((flaw) => flaw.kind === kind).map((flaw) => flaw.what)
    if (facts.length > 0) findings.push({ ...RULES[kind], evidence: facts.slice(0, 3).join(' ') })
  }
  if (mail.encrypted) {
    // No offence by itself: for rules of the operator, and so that the page says why nothing was found.
    const evidence = 'A part is encrypted, and what is in it was not looked at.'
    findings.push({ rule: 'ENCRYPTED_MAIL', score: 0, evidence })
  }
  return findings
}
