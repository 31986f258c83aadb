/**
 * Passwords of archives that stand in the mail itself: who sends a locked archive and its key
 * together locks out only the scanner. A bounded list of guesses, and a quick check for zip.
 */
import { pbkdf2Sync } from 'node:crypto'
import type { ZipEntry } from '../zip.ts'

/** Guesses of one message. */
const GUESSES_MAX = 30
/** Of those, what a format gets whose every guess takes 50 ms by design. */
export const SLOW_GUESSES_MAX = 12

const TEXT_CHARS_MAX = 64 * 1024
const WORD_CHARS_MAX = 64

/** Words that announce a password in the languages of most mail. */
const ANNOUNCED =
  /(?:pass\s?(?:word|code|phrase|wort)?|kennwort|losung|pwd?|pw|code|pin|key|schl(?:ü|ue)ssel|mot de passe|contrase(?:ñ|n)a|clave|senha|has(?:ł|l)o|parola|wachtwoord|l(?:ö|o)senord|heslo|jelsz(?:ó|o)|şifre|пароль|код|密码|密碼|口令|パスワード|비밀번호)/giu

/** What stands in archives of samples and of the lazy. */
const COMMON = [
  'infected',
  '1234',
  '12345',
  '123456',
  '123',
  '0000',
  '1111',
  'password',
  'virus',
  'malware',
  'qwerty',
  'abc123',
]

/** Guesses in the order in which they are tried; at most GUESSES_MAX. */
export function guessesIn(subject: string, text: string): readonly string[] {
  const guesses = new Set<string>()
  const add = (word: string): void => {
    if (
      word.length > 0 &&
      word.length <= WORD_CHARS_MAX &&
      guesses.size < GUESSES_MAX - COMMON.length
    )
      guesses.add(word)
  }
  const whole = `${subject}\n${text.slice(0, TEXT_CHARS_MAX)}`
  for (const match of whole.matchAll(ANNOUNCED)) {
    const after = whole.slice(match.index + match[0].length, match.index + match[0].length + 120)
    const quoted = /["'“”„«»‘’`]([^"'“”„«»‘’`\n]{1,64})["'“”„«»‘’`]/u.exec(after)?.[1]
    if (quoted !== undefined) add(quoted.trim())
    // After a sign that says so, or the words that follow: `is`, `lautet`, then the password.
    const direct = /^[^\n]{0,40}?[:=＝：]\s*(\S+)/u.exec(after)?.[1]
    if (direct !== undefined) for (const form of formsOf(direct)) add(form)
    for (const word of after.split(/\s+/u).slice(0, 8))
      if (/\d/.test(word) || /^\W?[A-Z]{4,}/.test(word) || /[^\p{L}\p{N}.,;:!?]/u.test(word))
        for (const form of formsOf(word)) add(form)
    const next = after
      .split(/\s+/u)
      .filter((word) => /\p{L}{3}/u.test(word))
      .slice(0, 4)
    for (const word of next) for (const form of formsOf(word)) add(form)
  }
  for (const word of COMMON) guesses.add(word)
  return [...guesses]
}

/** The word as it stands, and without the marks of a sentence around it. */
function formsOf(word: string): readonly string[] {
  const bare = word.replace(/^[\s"'“”„«»‘’`([{<:=]+|[\s"'“”„«»‘’`)\]}>.,;:!?]+$/gu, '')
  return bare === word ? [word] : [bare, word]
}

/**
 * Whether `guess` may open an encrypted entry: ZipCrypto by the last byte of its header, one in
 * 256 passes by chance (APPNOTE 6.1.6); WinZip AES by two bytes.
 */
export function mayOpen(bytes: Buffer, entry: ZipEntry, guess: string): boolean {
  const key = Buffer.from(guess, 'utf8')
  const { start, end } = entry
  if (entry.aes !== 0) {
    const saltBytes = 4 + entry.aes * 4
    const keyBytes = 8 + entry.aes * 8
    if (end - start < saltBytes + 2) return false
    const salt = bytes.subarray(start, start + saltBytes)
    const derived = pbkdf2Sync(key, salt, 1_000, keyBytes * 2 + 2, 'sha1')
    return derived
      .subarray(keyBytes * 2)
      .equals(bytes.subarray(start + saltBytes, start + saltBytes + 2))
  }
  if (end - start < 12) return false
  const last = lastOfHeader(bytes.subarray(start, start + 12), key)
  return last === entry.time >>> 8 || (entry.crc !== null && last === entry.crc >>> 24)
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb8_8320 : value >>> 1
  return value
})

/** APPNOTE 6.1.5 and 6.1.6: the last decrypted byte of the encryption header. */
function lastOfHeader(header: Buffer, key: Buffer): number {
  let [a, b, c] = [0x1234_5678, 0x2345_6789, 0x3456_7890]
  const crc = (value: number, byte: number): number =>
    ((CRC_TABLE[(value ^ byte) & 255] ?? 0) ^ (value >>> 8)) >>> 0
  const update = (byte: number): void => {
    a = crc(a, byte)
    b = (Math.imul((b + (a & 255)) >>> 0, 134_775_813) + 1) >>> 0
    c = crc(c, b >>> 24)
  }
  for (const byte of key) update(byte)
  let plain = 0
  for (const byte of header) {
    const word = (c | 2) & 0xffff
    plain = byte ^ ((Math.imul(word, word ^ 1) >>> 8) & 255)
    update(plain)
  }
  return plain
}
