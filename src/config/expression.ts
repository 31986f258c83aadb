/** Expressions over names of rules: read, and asked whether they hold. Pure. */
import { RefusalError } from '../base/errors.ts'

/** An expression over names of rules. */
export type Expression =
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'not'; readonly of: Expression }
  | { readonly kind: 'all' | 'any'; readonly of: readonly Expression[] }

/** `A & (B | !C)`; `&` binds closer than `|`. @throws RefusalError invalid, field `expression` */
export function parseExpression(text: string): Expression {
  const words = text.match(/[A-Za-z][A-Za-z0-9_]*|\S/g) ?? []
  let at = 0
  let depth = 0
  const fail = (): never => {
    throw new RefusalError(
      'invalid',
      'expression',
      at >= words.length
        ? 'The expression ends too early.'
        : `${JSON.stringify(words[at])} stands at a wrong place.`,
      'Write names of rules with &, |, ! and brackets: A & (B | !C).',
    )
  }
  const many = (kind: 'all' | 'any', sign: string, part: () => Expression): Expression => {
    const of = [part()]
    while (words[at] === sign) {
      at += 1
      of.push(part())
    }
    const [only] = of
    return of.length === 1 && only !== undefined ? only : { kind, of }
  }
  const one = (): Expression => {
    const word = words[at] ?? ''
    if (word === '!' || word === '(') {
      at += 1
      depth += 1
      if (depth > 50) fail()
      const inner = word === '!' ? { kind: 'not' as const, of: one() } : any()
      if (word === '(' && words[at++] !== ')') fail()
      depth -= 1
      return inner
    }
    if (!/^[A-Za-z]/.test(word)) fail()
    at += 1
    return { kind: 'name', name: word.toUpperCase() }
  }
  const any = (): Expression => many('any', '|', () => many('all', '&', one))
  const expression = any()
  if (at < words.length) fail()
  return expression
}

/** Names of rules in an expression. */
export function namesIn(expression: Expression): readonly string[] {
  switch (expression.kind) {
    case 'name':
      return [expression.name]
    case 'not':
      return namesIn(expression.of)
    default:
      return expression.of.flatMap(namesIn)
  }
}

/** Whether an expression holds over the names that were found. */
export function holds(expression: Expression, found: ReadonlySet<string>): boolean {
  switch (expression.kind) {
    case 'name':
      return found.has(expression.name)
    case 'not':
      return !holds(expression.of, found)
    case 'all':
      return expression.of.every((each) => holds(each, found))
    case 'any':
      return expression.of.some((each) => holds(each, found))
  }
}
