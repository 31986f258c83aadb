/** Rich text: objects in hex, templates and fields that reach outside. */
import { packageIn, sayDde } from './office.ts'
import type { Scene } from './scene.ts'

const OBJECTS_MAX = 50
const OBJECT_CHARS_MAX = 16 * 1024 * 1024
const OLE = Buffer.from('d0cf11e0a1b11ae1', 'hex')

export function lookAtRtf(content: Buffer, scene: Scene): void {
  const text = content.toString('latin1')
  if (/\\objupdate\b/i.test(text))
    scene.say('RTF_OBJECT_UPDATES', 8, `${scene.path} has an object that loads by itself.`)
  const template = /\\\*\s*\\template\s+([^{}]{1,1000})/i.exec(text)?.[1] ?? ''
  if (/(?:https?|ftp):|\\\\\\\\/i.test(template.replace(/\\'[0-9a-f]{2}/gi, lettered)))
    scene.say(
      'OFFICE_REMOTE_TEMPLATE',
      8,
      `${scene.path} fetches its template from ${template.slice(0, 100)}.`,
    )
  for (const [, field = ''] of text.matchAll(/\\fldinst\b([^}]{0,2000})/gi))
    if (/\bDDE(?:AUTO)?\s/i.test(field.replace(/\\[a-z]+-?\d* ?|[{}\r\n]/gi, ''))) sayDde(scene)
  let objects = 0
  for (let at = text.search(/\\objdata\b/i); at !== -1 && objects < OBJECTS_MAX; objects += 1) {
    const end = lookAtObject(text, at + 8, scene)
    const next = text.slice(end).search(/\\objdata\b/i)
    at = next === -1 ? -1 : end + next
  }
  if (objects === 0 && /\\objclass\s+(?:package|equation)/i.test(text))
    scene.say('RTF_OBJECT', 5, `${scene.path} names an object that it hides.`)
}

function lettered(code: string): string {
  return String.fromCharCode(Number.parseInt(code.slice(2), 16))
}

/** Reads hex digits through groups and control words that are there to hide them; returns the end. */
function lookAtObject(text: string, from: number, scene: Scene): number {
  const limit = Math.min(text.length, from + OBJECT_CHARS_MAX)
  let depth = 0
  let at = from
  const digits: string[] = []
  let run = at
  const flush = (): void => {
    if (at > run) digits.push(text.slice(run, at).replace(/[^0-9a-f]+/gi, ''))
  }
  for (; at < limit; at += 1) {
    const code = text.charCodeAt(at)
    if (code === 123) {
      flush()
      depth += 1
      run = at + 1
    } else if (code === 125) {
      flush()
      if (depth === 0) break
      depth -= 1
      run = at + 1
    } else if (code === 92) {
      flush()
      at += 1
      while (at < limit && /[a-z]/i.test(text[at] ?? '')) at += 1
      while (at < limit && /[-\d]/.test(text[at] ?? '')) at += 1
      run = at
      at -= 1
    }
  }
  if (depth === 0) flush()
  const object = Buffer.from(
    digits.join('').replace(/.$/, (last) => last),
    'hex',
  )
  tell(object, scene)
  return Math.max(at, from)
}

function tell(object: Buffer, scene: Scene): void {
  const head = object.toString('latin1', 0, 200)
  const equation = /equation/i.test(head) || object.includes('Equation Native')
  if (equation)
    scene.say(
      'OFFICE_OBJECT',
      8,
      `${scene.path} holds an equation of the editor that lets code in.`,
    )
  else scene.say('RTF_OBJECT', 4, `${scene.path} holds an object.`)
  const ole = object.indexOf(OLE)
  if (ole !== -1) scene.embed(null, 'ole', object.subarray(ole))
  const named = /package\0/i.exec(head)
  if (named !== null) {
    // The class, two names that are empty, the size, then the file.
    const file = packageIn(object.subarray(named.index + 8 + 12))
    if (file !== null) scene.embed(file.name, 'ole', file.content)
  }
}
