/** The bars of a run: each is printed as met or not met, with what was measured. */
import { short } from './numbers.ts'

export type Bar = {
  readonly what: string
  readonly measured: number
  readonly bound: number
  readonly isMet: boolean
  readonly text: string
}

export const bars: Bar[] = []

/** Says that `measured` must be at least `bound`; `target` is what we hope for. */
export function atLeast(what: string, measured: number, bound: number, target?: number): void {
  add(what, measured, bound, measured >= bound, '>=', target)
}

export function atMost(what: string, measured: number, bound: number, target?: number): void {
  add(what, measured, bound, measured <= bound, '<=', target)
}

function add(
  what: string,
  measured: number,
  bound: number,
  isMet: boolean,
  sign: string,
  target: number | undefined,
): void {
  const reached =
    target !== undefined && (sign === '>=' ? measured >= target : measured <= target)
      ? ', target reached'
      : ''
  const aim = target === undefined ? '' : `, target ${short(target)}${reached}`
  const text = `${isMet ? 'met    ' : 'NOT MET'}  ${what}: ${short(measured)} (bar ${sign} ${short(bound)}${aim})`
  bars.push({ what, measured, bound, isMet, text })
}

export function printBars(): void {
  for (const { text } of bars) process.stdout.write(`${text}\n`)
  const met = bars.filter(({ isMet }) => isMet).length
  process.stdout.write(`${met} of ${bars.length} bars met\n`)
}
