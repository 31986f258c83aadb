/** EICAR: the harmless file that every virus scanner must find, in parts and in archives. */
import type { Finding } from '../../message/verdict.ts'
import { type ArchiveFacts, visitFiles } from './files.ts'
import type { Inspector } from './look.ts'

/** In two halves, so that no scanner takes this program for it. */
const EICAR = Buffer.from(
  ['X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-', 'ANTIVIRUS-TEST-FILE!$H+H*'].join(''),
)

export const eicar: Inspector = {
  name: 'eicar',
  inspect: ({ mail }) => {
    let found: string | null = null
    const archives = visitFiles(mail, ({ path }) => {
      if (found !== null) return null
      const search = searcher()
      return (piece) => {
        if (search(piece)) found ??= path
        return found === null
      }
    })
    const findings = archiveFindings(archives)
    if (found === null && mail.raw.includes(EICAR)) found = 'The message itself'
    if (found === null) return findings
    // A virus is held whatever else is said; not refused, so that a person sees it.
    return [
      { rule: 'EICAR', score: 12, evidence: `${found} holds the test virus EICAR.` },
      ...findings,
    ]
  },
}

/** Finds the text also where two pieces meet. */
function searcher(): (piece: Buffer) => boolean {
  let before: Buffer = Buffer.of()
  return (piece) => {
    if (piece.includes(EICAR)) return true
    if (
      before.length > 0 &&
      Buffer.concat([before, piece.subarray(0, EICAR.length)]).includes(EICAR)
    )
      return true
    const tail = piece.length >= EICAR.length ? piece : Buffer.concat([before, piece])
    before = Buffer.from(tail.subarray(-EICAR.length))
    return false
  }
}

/** What could not be looked into is said: unseen is not clean. */
function archiveFindings({ limits, encrypted, broken }: ArchiveFacts): readonly Finding[] {
  const findings: Finding[] = []
  if (limits.length > 0)
    findings.push({ rule: 'ARCHIVE_LIMIT', score: 8, evidence: limits.join(' ') })
  if (encrypted.length > 0)
    findings.push({ rule: 'ARCHIVE_ENCRYPTED', score: 4, evidence: encrypted.join(' ') })
  if (broken.length > 0)
    findings.push({ rule: 'ARCHIVE_BROKEN', score: 4, evidence: broken.join(' ') })
  return findings
}
