// What a program in TypeScript does with the types of the document; it is compiled, never run.
import type { paths } from "./api";

type Answered<
  Path extends keyof paths,
  Method extends keyof paths[Path],
  Status extends number,
> = paths[Path][Method] extends {
  responses: Record<Status, { content: { "application/json": infer Body } }>;
}
  ? Body
  : never;

type Image = Answered<"/api/v1/images/{image_id}/status", "get", 200>;
type Unknown = Answered<"/api/v1/images/{image_id}/status", "get", 404>;
type Found = Answered<"/api/v1/images/search", "post", 200>;

export const failed = (image: Image): string[] =>
  image.processingSteps.filter((each) => each.status === "failed").map((each) => each.step);

export const percent = (image: Image): number => image.percentComplete;

export const names = (found: Found): (string | null)[] =>
  found.results.map((each) => each.fileName);

export const why = (unknown: Unknown): "IMAGE_NOT_FOUND" => unknown.errorCode;

// @ts-expect-error There is no such field.
export const wrong = (image: Image) => image.processingStep;
