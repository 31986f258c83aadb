/**
 * Near-duplicates of a learnt message. A signature is a minimum hash in each of 64 groups of
 * shingles, one octet each (Li, Owen, Zhang: One Permutation Hashing, 2012; b-bit minwise hashing):
 * the part of equal octets tells how much of two texts is the same. A shingle is two words in a
 * row, without digits, which such mails change most.
 */
import { SIGNATURE_BYTES, tokenOf } from '../../message/learned.ts'
import type { Inspector } from './look.ts'
import { viewOf } from './view.ts'

/** Shorter texts have too little that is their own: the lines that a mailing list adds are half of them. */
const SHINGLES_LEAST = 64
/** Slots for that many different ones: a power of two, half of them free. */
const SLOTS = 256
const TEXT_CHARS_MAX = 100_000
/**
 * From here on two texts are one campaign. With every tenth word another 99.4 % of the spam of the
 * public corpus is more like itself, half of it 0.69; none of its 4,150 ham is more than 0.36 like
 * any of its spam.
 */
const ALIKE = 0.45
/** `Fuzzy deny` of Rspamd is 12: a whole likeness. The least one holds a mail, and no more. */
const SCORE_LEAST = 8
const SCORE_MOST = 12

export const campaign: Inspector = {
  name: 'campaign',
  inspect: ({ mail, model }) => {
    if (model === null) return []
    const signature = signatureOf(viewOf(mail).text)
    if (signature === null) return []
    const alike = model.alike(signature)
    const [spam, ham] = (['spam', 'ham'] as const).map((label) =>
      alike.find((one) => one.label === label),
    )
    if (spam === undefined || spam.part < ALIKE) return []
    // Somebody said of one that is closer that it is none.
    if (ham !== undefined && ham.part >= spam.part) return []
    const part = (spam.part - ALIKE) / (1 - ALIKE)
    return [
      {
        rule: 'FUZZY_DENIED',
        score: Math.round((SCORE_LEAST + part * (SCORE_MOST - SCORE_LEAST)) * 10) / 10,
        evidence: `${Math.round(100 * spam.part)} % like the mail “${spam.name}”, which was learnt as spam (sample ${spam.fingerprint.slice(0, 12)}).`,
      },
    ]
  },
}

/** SIGNATURE_BYTES octets; null: too short. */
export function signatureOf(text: string): Uint8Array | null {
  const least = new Uint32Array(SIGNATURE_BYTES).fill(0xffff_ffff)
  const end = Math.min(text.length, TEXT_CHARS_MAX)
  const slots = new Uint32Array(SLOTS)
  let distinct = 0
  let before = 0
  let hash = 0
  let length = 0
  for (let at = 0; at <= end; at += 1) {
    let code = at < end ? text.charCodeAt(at) : 32
    if (code >= 65 && code <= 90) code += 32
    const isLetter = (code >= 97 && code <= 122) || code >= 0xc0
    if (isLetter) {
      hash = Math.imul((length === 0 ? 0x811c_9dc5 : hash) ^ code, 0x0100_0193)
      length += 1
      // Scripts without spaces: every character is a word.
      if (code < 0x2e80) continue
    }
    if (length === 0) continue
    if (before !== 0) {
      const shingle = tokenOf(Math.imul(before, 0x2545_f491) ^ hash)
      const group = shingle >>> 26
      // The group took the high bits.
      const value = Math.imul(shingle, 0x9e37_79b1) >>> 0
      if (value < (least[group] ?? 0)) least[group] = value
      if (distinct < SHINGLES_LEAST && isNew(slots, shingle)) distinct += 1
    }
    before = hash
    length = 0
  }
  return distinct < SHINGLES_LEAST ? null : octetsOf(least)
}

/** A text may hold itself again and again, in every way that some reader decodes it. */
function isNew(slots: Uint32Array, shingle: number): boolean {
  let at = shingle & (SLOTS - 1)
  for (; slots[at] !== 0; at = (at + 1) & (SLOTS - 1)) if (slots[at] === shingle) return false
  slots[at] = shingle
  return true
}

/** A group without a shingle takes the octet of the next one that has some, and its distance. */
function octetsOf(least: Uint32Array): Uint8Array {
  return Uint8Array.from(least, (_, group) => {
    for (let away = 0; away < SIGNATURE_BYTES; away += 1) {
      const value = least[(group + away) % SIGNATURE_BYTES] ?? 0
      if (value !== 0xffff_ffff) return tokenOf(value + away) & 0xff
    }
    return 0
  })
}
